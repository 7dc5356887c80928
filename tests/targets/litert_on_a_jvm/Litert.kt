// Stands in, on a JVM, for those classes of LiteRT's Kotlin package that the page uses; the package itself needs Android. It runs the
// model by LiteRT's Python package: LITERT_RUN is the command, which a file's path follows.
package com.google.ai.edge.litert

import java.nio.ByteBuffer
import java.nio.ByteOrder

enum class Accelerator { NONE, CPU, GPU, NPU }

class TensorBuffer internal constructor(internal var values: FloatArray) : AutoCloseable {
    private var open = true

    fun writeFloat(data: FloatArray) {
        check(open && data.size <= values.size) { "${data.size} numbers don't fit into ${values.size}, or the buffer is closed." }
        data.copyInto(values)
    }

    fun readFloat(): FloatArray = values.copyOf().also { check(open) }

    override fun close() {
        open = false
    }
}

class CompiledModel private constructor(private val path: String) : AutoCloseable {
    data class CpuOptions(
        val numThreads: Int? = null,
        val xnnPackFlags: Int? = null,
        val xnnPackWeightCachePath: String? = null,
    )

    class Options(internal val accelerators: Set<Accelerator>) {
        constructor(vararg accelerators: Accelerator) : this(setOf(*accelerators))

        var cpuOptions: CpuOptions? = null
    }

    private val sizes = executed(FloatArray(0)).map { it.toInt() } // of input and output

    fun createInputBuffers(signatureIndex: Int = 0) = listOf(TensorBuffer(FloatArray(sizes[0])))

    fun createOutputBuffers(signatureIndex: Int = 0) = listOf(TensorBuffer(FloatArray(sizes[1])))

    fun run(inputs: List<TensorBuffer>, outputs: List<TensorBuffer>, signatureIndex: Int = 0) {
        outputs.single().values = executed(inputs.single().values)
    }

    override fun close() = Unit

    // Gives the runner an input, and returns what it prints; without an input, the numbers of elements.
    private fun executed(values: FloatArray): FloatArray {
        val process = ProcessBuilder(System.getenv("LITERT_RUN").split(" ") + path).redirectError(ProcessBuilder.Redirect.INHERIT).start()
        val bytes = ByteBuffer.allocate(4 * values.size).order(ByteOrder.LITTLE_ENDIAN)
        bytes.asFloatBuffer().put(values)
        process.outputStream.use { it.write(bytes.array()) }
        val found = ByteBuffer.wrap(process.inputStream.readBytes()).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer()
        check(process.waitFor() == 0) { "LiteRT couldn't run $path." }
        return FloatArray(found.remaining()).also { found.get(it) }
    }

    companion object {
        @JvmStatic
        fun create(filePath: String, options: Options): CompiledModel {
            check(options.accelerators == setOf(Accelerator.CPU) && options.cpuOptions?.numThreads == 1)
            return CompiledModel(filePath)
        }
    }
}
