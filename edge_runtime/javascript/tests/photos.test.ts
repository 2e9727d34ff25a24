/** Photos are what their content says, whatever they are called. */

import assert from "node:assert/strict";
import { promises as fs } from "node:fs";
import os from "node:os";
import path from "node:path";
import test from "node:test";
import type { Manifest } from "../src/bundle/manifest.js";
import { sharpModule } from "../src/node/packages.js";
import { packedFolder } from "../src/node/photos.js";

const MANIFEST = { classNames: ["owl", "cat"], imageSize: 8 } as unknown as Manifest;

function container(...brands: string[]): Buffer {
  const [first, ...others] = brands;
  const head = Buffer.alloc(4);
  head.writeUInt32BE(16 + 4 * others.length);
  return Buffer.concat([head, Buffer.from(`ftyp${first}\0\0\0\0${others.join("")}`, "latin1"), Buffer.alloc(64)]);
}

test("HEIC is known by its content, and JPEG that is called HEIC is read", async () => {
  const folder = await fs.mkdtemp(path.join(os.tmpdir(), "photos-"));
  try {
    const inside = path.join(folder, "cat");
    await fs.mkdir(inside);
    const sharp = await sharpModule();
    for (const [number, name] of ["0.jpg", "1.jpg", "called.heic"].entries()) {
      const background = { r: 60 * number, g: 0, b: 0 };
      const picture = sharp({ create: { width: 8, height: 8, channels: 3, background } }).jpeg();
      await fs.writeFile(path.join(inside, name), await picture.toBuffer());
    }
    await fs.writeFile(path.join(inside, "whatsapp.jpg"), container("heic", "mif1"));
    await fs.writeFile(path.join(inside, "other.png"), container("mif1", "heic"));
    await fs.writeFile(path.join(inside, "cut.avif"), container("avif", "mif1"));
    const said: string[] = [];
    const options = { maps: new Map<string, string>(), fit: "crop", validationShare: 0.1 } as const;
    const data = await packedFolder(folder, MANIFEST, options, undefined, (line) => said.push(line));
    assert.equal(data.train.labels.length + data.validation.labels.length, 3);
    const named = said.filter((line) => line.includes("HEIC, which this program does not read: save it as JPEG"));
    assert.equal(named.length, 1);
    assert.match(named[0], /left out, 2: .*: cat\/other\.png, cat\/whatsapp\.jpg$/);
    assert.ok(said.some((line) => line.includes("no image at all: cat/cut.avif")));
  } finally {
    await fs.rm(folder, { recursive: true });
  }
});
