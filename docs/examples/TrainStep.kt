// Trains with train_step.onnx on Android. build.gradle: implementation("com.microsoft.onnxruntime:onnxruntime-android:VERSION")
import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtSession
import org.json.JSONArray
import org.json.JSONObject
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.FloatBuffer
import java.nio.LongBuffer

/** [images] are N x 3 x S x S in 0..1, [labels] N, [serverLogits] N x classes: zeros as long as there is no teacher. */
class Batch(val images: FloatArray, val labels: LongArray, val serverLogits: FloatArray, val alpha: Float, val learningRate: Float)

/** safetensors: 8 bytes of header length, a JSON header, the vectors back to back; little-endian. */
fun readState(env: OrtEnvironment, file: File): Map<String, OnnxTensor> {
    val bytes = file.readBytes()
    fun part(begin: Int, end: Int) = ByteBuffer.wrap(bytes, begin, end - begin).slice().order(ByteOrder.LITTLE_ENDIAN)
    val start = 8 + part(0, 8).getLong().toInt()
    val header = JSONObject(String(bytes, 8, start - 8, Charsets.UTF_8))
    return header.keys().asSequence().filter { it != "__metadata__" }.associateWith { name ->
        val entry = header.getJSONObject(name)
        val offsets = entry.getJSONArray("data_offsets")
        val shape = longArrayOf(entry.getJSONArray("shape").getLong(0))
        val values = part(start + offsets.getInt(0), start + offsets.getInt(1))
        when (entry.getString("dtype")) {
            "F32" -> OnnxTensor.createTensor(env, values.asFloatBuffer(), shape)
            "I64" -> OnnxTensor.createTensor(env, values.asLongBuffer(), shape)
            else -> error("$file: $name has a type that no step has")
        }
    }
}

/** The same format, under another name first: a phone that dies while it writes keeps the state before. */
fun writeState(state: Map<String, OnnxTensor>, types: JSONObject, file: File) {
    val header = JSONObject()
    var end = 0
    val parts = state.map { (name, tensor) ->
        val part = tensor.getByteBuffer()
        val bytes = ByteArray(part.remaining()).also { part.get(it) }
        val isFloat = types.getString(name) == "float32"
        val shape = JSONArray().put(bytes.size / (if (isFloat) 4 else 8))
        val offsets = JSONArray().put(end).put(end + bytes.size)
        header.put(name, JSONObject().put("dtype", if (isFloat) "F32" else "I64").put("shape", shape).put("data_offsets", offsets))
        end += bytes.size
        bytes
    }
    val text = header.toString().toByteArray(Charsets.UTF_8)
    val length = ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN).putLong(text.size.toLong()).array()
    val temporary = File(file.path + ".tmp")
    temporary.outputStream().use { stream ->
        stream.write(length)
        stream.write(text)
        parts.forEach { stream.write(it) }
        stream.fd.sync()
    }
    check(temporary.renameTo(file)) { "cannot write $file" }
}

/** Train from the state in [from] and leave the new one in [to]; the losses. */
fun train(bundle: File, from: File, to: File, batches: Iterable<Batch>): List<Float> {
    val manifest = JSONObject(File(bundle, "manifest.json").readText())
    val size = manifest.getLong("image_size")
    val classes = manifest.getLong("num_classes")
    val env = OrtEnvironment.getEnvironment()
    val options = OrtSession.SessionOptions()
    options.setIntraOpNumThreads(1)
    options.setMemoryPatternOptimization(false)              // less memory, and no step is faster with it
    val losses = mutableListOf<Float>()

    fun floats(values: FloatArray, vararg shape: Long) = OnnxTensor.createTensor(env, FloatBuffer.wrap(values), shape)
    fun longs(values: LongArray, vararg shape: Long) = OnnxTensor.createTensor(env, LongBuffer.wrap(values), shape)

    env.createSession(File(bundle, "train_step.onnx").path, options).use { session ->
        var state = readState(env, from)
        var previous: OrtSession.Result? = null
        val fetches = setOf("loss") + state.keys.map { "next_$it" }
        for (batch in batches) {
            val num = batch.labels.size.toLong()
            val inputs = mapOf(
                "images" to floats(batch.images, num, 3, size, size),
                "labels" to longs(batch.labels, num),
                "server_logits" to floats(batch.serverLogits, num, classes),
                "alpha" to floats(floatArrayOf(batch.alpha)),                    // no lengths: a scalar
                "learning_rate" to floats(floatArrayOf(batch.learningRate)),
            )
            val result = session.run(state + inputs, fetches)
            // Tensors lie outside the garbage collector's reach: close what the next step does not need.
            inputs.values.forEach { it.close() }
            previous?.close() ?: state.values.forEach { it.close() }
            previous = result
            state = state.keys.associateWith { result.get("next_$it").get() as OnnxTensor }
            losses += (result.get("loss").get() as OnnxTensor).getFloatBuffer().get(0)
        }
        writeState(state, manifest.getJSONObject("portable_state").getJSONObject("dtypes"), to)
        previous?.close()
    }
    return losses
}
