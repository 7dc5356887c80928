import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtSession
import ai.onnxruntime.TensorInfo
import java.io.File
import java.nio.FloatBuffer
import kotlin.math.max

/** Returns the scores that the model.onnx of a delivered folder gives a photo. */
fun scores(folder: File, input: Input): FloatArray {
    val environment = OrtEnvironment.getEnvironment()
    val options = OrtSession.SessionOptions().apply { setIntraOpNumThreads(1) }
    environment.createSession(File(folder, "model.onnx").path, options).use { session ->
        val (name, about) = session.inputInfo.entries.first()
        // A file takes any number of photos, or a fixed one: then the batch is filled up with the same photo.
        val batch = max(1, (about.info as TensorInfo).shape[0].toInt())
        val values = FloatBuffer.allocate(batch * input.values.size)
        repeat(batch) { values.put(input.values) }
        values.rewind()
        val shape = longArrayOf(batch.toLong()) + input.shape.map { it.toLong() }
        OnnxTensor.createTensor(environment, values, shape).use { tensor ->
            session.run(mapOf(name to tensor)).use { results ->
                val all = (results[0] as OnnxTensor).floatBuffer
                return FloatArray(all.remaining() / batch).also { all.get(it) }
            }
        }
    }
}

fun main(arguments: Array<String>) {
    val (folder, photo) = arguments.map { File(it) }
    val delivered = Delivered(folder)
    delivered.show(scores(folder, delivered.input(photo)))
}
