/** What Node adds: files, sockets, pictures, ONNX Runtime. */

export { FilesStore } from "./files-store.js";
export { NodeTransport } from "./node-transport.js";
export { onnxRuntime, sharpModule, zstandard } from "./packages.js";
export { packedFolder } from "./photos.js";
export { LineProgress } from "./progress.js";
