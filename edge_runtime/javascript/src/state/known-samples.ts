import type { PrivateData } from "../data/private-data.js";
import { hex, int64Bytes, joined, sha256 } from "../hashing.js";
export async function samplesSha256(data: PrivateData): Promise<string> {
  const parts = [data.train, data.validation].flatMap(({ sampleIds }) => [
    int64Bytes(sampleIds.length),
    new Uint8Array(sampleIds.buffer, sampleIds.byteOffset, sampleIds.byteLength),
  ]);
  return hex(await sha256(joined(parts)));
}
