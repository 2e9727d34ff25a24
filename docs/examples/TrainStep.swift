// Trains with train_step.onnx on iOS. Package: https://github.com/microsoft/onnxruntime-swift-package-manager
// (with CocoaPods, pod "onnxruntime-objc" and import onnxruntime_objc).
import Foundation
import OnnxRuntimeBindings

/// images are N x 3 x S x S in 0..1, labels N, serverLogits N x classes: zeros as long as there is no teacher.
struct Batch {
    let images: [Float], labels: [Int64], serverLogits: [Float], alpha: Float, learningRate: Float
}

struct DamagedState: Error {}

/// safetensors: 8 bytes of header length, a JSON header, the vectors back to back; little-endian.
func readState(_ url: URL) throws -> [String: ORTValue] {
    let file = try Data(contentsOf: url)
    let start = 8 + file.prefix(8).reversed().reduce(0) { $0 << 8 | Int($1) }
    guard start <= file.count,
          let header = try JSONSerialization.jsonObject(with: file.subdata(in: 8..<start)) as? [String: [String: Any]]
    else { throw DamagedState() }
    var state: [String: ORTValue] = [:]
    for (name, entry) in header where name != "__metadata__" {
        guard let dtype = entry["dtype"] as? String, let shape = entry["shape"] as? [NSNumber],
              let offsets = entry["data_offsets"] as? [Int], offsets.count == 2, start + offsets[1] <= file.count
        else { throw DamagedState() }
        let bytes = NSMutableData(data: file.subdata(in: (start + offsets[0])..<(start + offsets[1])))
        state[name] = try ORTValue(tensorData: bytes, elementType: dtype == "I64" ? .int64 : .float, shape: shape)
    }
    return state
}

/// The same format. Atomic: a phone that dies while it writes keeps the state before.
func writeState(_ state: [String: ORTValue], to url: URL) throws {
    var header: [String: [String: Any]] = [:], body = Data()
    for (name, value) in state {
        let info = try value.tensorTypeAndShapeInfo(), bytes = try value.tensorData() as Data
        let dtype = info.elementType == .int64 ? "I64" : "F32"
        header[name] = ["dtype": dtype, "shape": info.shape, "data_offsets": [body.count, body.count + bytes.count]]
        body.append(bytes)
    }
    let text = try JSONSerialization.data(withJSONObject: header)
    var file = withUnsafeBytes(of: UInt64(text.count).littleEndian) { Data($0) }
    file.append(text)
    file.append(body)
    try file.write(to: url, options: .atomic)
}

func tensor<T>(_ values: [T], _ type: ORTTensorElementDataType, _ shape: [Int]) throws -> ORTValue {
    let bytes = NSMutableData(data: values.withUnsafeBytes { Data($0) })
    return try ORTValue(tensorData: bytes, elementType: type, shape: shape.map { NSNumber(value: $0) })
}

/// Train from the state in one file and leave the new one in another; the losses. size and classes: manifest.json.
func train(bundle: URL, from: URL, to: URL, batches: [Batch], size: Int, classes: Int) throws -> [Float] {
    let env = try ORTEnv(loggingLevel: .warning)
    let options = try ORTSessionOptions()
    try options.setIntraOpNumThreads(1)
    let model = bundle.appendingPathComponent("train_step.onnx").path
    let session = try ORTSession(env: env, modelPath: model, sessionOptions: options)
    var state = try readState(from)
    var losses: [Float] = []
    let fetches = Set(["loss"] + state.keys.map { "next_" + $0 })
    for batch in batches {
        try autoreleasepool {
            let num = batch.labels.count
            var inputs = state
            inputs["images"] = try tensor(batch.images, .float, [num, 3, size, size])
            inputs["labels"] = try tensor(batch.labels, .int64, [num])
            inputs["server_logits"] = try tensor(batch.serverLogits, .float, [num, classes])
            inputs["alpha"] = try tensor([batch.alpha], .float, [])                  // no lengths: a scalar
            inputs["learning_rate"] = try tensor([batch.learningRate], .float, [])
            let outputs = try session.run(withInputs: inputs, outputNames: fetches, runOptions: nil)
            state = Dictionary(uniqueKeysWithValues: state.keys.map { ($0, outputs["next_" + $0]!) })
            losses.append((try outputs["loss"]!.tensorData() as Data).withUnsafeBytes { $0.load(as: Float.self) })
        }
    }
    try writeState(state, to: to)
    return losses
}
