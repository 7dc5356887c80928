import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.CompiledModel
import java.io.File

/** Returns the scores that the model.tflite of a delivered folder gives a photo. */
fun scores(folder: File, input: Input): FloatArray {
    val options = CompiledModel.Options(Accelerator.CPU).apply { cpuOptions = CompiledModel.CpuOptions(numThreads = 1) }
    CompiledModel.create(File(folder, "model.tflite").path, options).use { model ->
        val given = model.createInputBuffers()
        val made = model.createOutputBuffers()
        try {
            // A file takes a fixed number of photos, mostly 1: the batch is filled up with the same photo.
            val size = given[0].readFloat().size
            require(size > 0 && size % input.values.size == 0) { "preprocess.json makes images of another size than the model takes." }
            given[0].writeFloat(FloatArray(size) { input.values[it % input.values.size] })
            model.run(given, made)
            return made[0].readFloat().let { it.copyOf(it.size / (size / input.values.size)) }
        } finally {
            (given + made).forEach { it.close() }
        }
    }
}

fun main(arguments: Array<String>) {
    val (folder, photo) = arguments.map { File(it) }
    val delivered = Delivered(folder)
    delivered.show(scores(folder, delivered.input(photo)))
}
