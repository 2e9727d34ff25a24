/** Trust one authority: the server's own, whose hash stands in the join link; `edge_runtime/connection/authority.py`. */

import { AuthenticationError } from "../errors.js";
import { sha256Hex } from "../hashing.js";

const PEM = /^-----BEGIN CERTIFICATE-----\s+([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----$/;

/**
 * Give a certificate (PEM), if it is the link's.
 *
 * @param url Of the server, for the message.
 * @param certificate What the server says of its authority.
 * @param caSha256 The hash in the link.
 * @throws AuthenticationError It is another one, or no certificate.
 */
export async function checkedAuthority(url: string, certificate: string, caSha256: string): Promise<string> {
  const encoded = PEM.exec(certificate.trim())?.[1];
  let sha256 = "no certificate";
  try {
    if (encoded)
      sha256 = await sha256Hex(Uint8Array.from(atob(encoded.replace(/\s/g, "")), (each) => each.charCodeAt(0)));
  } catch {
    // It is not base64.
  }
  if (sha256 !== caSha256) {
    throw new AuthenticationError(
      `${url} is not the server of the link: its authority is sha256:${sha256}, the link says sha256:${caSha256}. Somebody ` +
        "stands between, or another server answers there: ask for another link",
    );
  }
  return certificate;
}
