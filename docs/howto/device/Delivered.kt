// What a delivered folder says: how a photo becomes an input (preprocess.json), and what outputs mean (classes.txt).
import java.io.File
import kotlin.math.abs
import kotlin.math.exp
import kotlin.math.max
import kotlin.math.min
import kotlin.math.round
import org.json.JSONObject

/** Bytes of an image, 0 to 255, row by row, the channels of a pixel side by side. */
class Image(val width: Int, val height: Int, val channels: Int, val bytes: ByteArray)

/** Values of an input, channel by channel, row by row, and its channels, height and width. */
class Input(val values: FloatArray, val shape: List<Int>)

class Delivered(private val folder: File) {
    private val names = File(folder, "classes.txt").let { if (it.exists()) it.readLines() else emptyList() }
    private val how = File(folder, "preprocess.json").readText().let {
        require(it.trim() != "null") { "preprocess.json doesn't say how a photo becomes an input." }
        JSONObject(it)
    }

    /** Returns the input that preprocess.json makes of a photo. */
    fun input(photo: File): Input {
        val file = photo.readBytes()
        var image = upright(decoded(file), orientation(file), if (how.getString("mode") == "L") 1 else 3)
        val shorter = min(image.width, image.height)
        if (!how.isNull("resize") && how.getInt("resize") != shorter) {
            val resize = how.getInt("resize")
            val ratio = resize.toDouble() / shorter
            val width = max(resize, (image.width * ratio).toInt())
            val height = max(resize, (image.height * ratio).toInt())
            require(width.toLong() * height <= MOST_PIXELS) { "The photo is too thin to be scaled." }
            val wide = scaled(image.bytes, image.width, width, image.channels)
            image = Image(width, height, image.channels, scaled(wide, image.height, height, width * image.channels))
        }
        val crop = if (how.isNull("crop")) null else how.getJSONArray("crop")
        val height = crop?.getInt(0) ?: image.height
        val width = crop?.getInt(1) ?: image.width
        val top = round((image.height - height) / 2.0).toInt() // 0.5 goes to the even number, as in Python
        val left = round((image.width - width) / 2.0).toInt()
        val values = FloatArray(image.channels * height * width)
        var place = 0
        for (channel in 0 until image.channels) {
            val mean = how.getJSONArray("mean").getDouble(channel).toFloat()
            val std = how.getJSONArray("std").getDouble(channel).toFloat()
            for (y in top until top + height) for (x in left until left + width) {
                val inside = x in 0 until image.width && y in 0 until image.height // outside is black
                val byte = if (inside) image.bytes[(y * image.width + x) * image.channels + channel] else 0
                values[place++] = ((byte.toInt() and 255) / 255f - mean) / std
            }
        }
        return Input(values, listOf(image.channels, height, width))
    }

    /** Prints the most likely classes: probability, score as the model gives it, name. */
    fun show(scores: FloatArray) {
        val best = scores.max()
        val sum = scores.sumOf { exp((it - best).toDouble()) }
        for (index in scores.indices.sortedByDescending { scores[it] }.take(5)) {
            val share = 100 * exp((scores[index] - best).toDouble()) / sum
            println("%6.1f%%  %9.5f  %s".format(share, scores[index], names.getOrElse(index) { "$index" }))
        }
    }
}

const val MOST_PIXELS = 1 shl 26 // as in run.py

/** Pixels of an image as 0xAARRGGBB, row by row. */
class Pixels(val width: Int, val height: Int, val colours: IntArray)

/** Returns how a JPEG file's pixels lie, 1 to 8 as EXIF numbers it. 1 is upright, also where the file doesn't say. */
fun orientation(file: ByteArray): Int {
    fun number(at: Int, count: Int, little: Boolean): Int {
        require(at >= 0 && at + count <= file.size) { "The photo's EXIF data are cut off." }
        val order = if (little) count - 1 downTo 0 else 0 until count
        return order.fold(0) { value, i -> (value shl 8) or (file[at + i].toInt() and 255) }
    }
    if (file.size < 4 || number(0, 2, false) != 0xFFD8) return 1
    var at = 2
    while (at + 18 < file.size && number(at, 1, false) == 0xFF && number(at + 1, 1, false) != 0xDA) {
        if (number(at + 1, 1, false) == 0xE1 && String(file, at + 4, 6, Charsets.ISO_8859_1) == "Exif\u0000\u0000") {
            val start = at + 10
            val little = file[start] == 'I'.code.toByte()
            val table = start + number(start + 4, 4, little)
            for (i in 0 until number(table, 2, little)) {
                val entry = table + 2 + 12 * i
                if (number(entry, 2, little) == 0x0112) return number(entry + 8, 2, little)
            }
        }
        at += 2 + number(at + 2, 2, false)
    }
    return 1
}

/** Returns a photo upright, with 3 channels or, grey, with 1. */
fun upright(photo: Pixels, turn: Int, channels: Int): Image {
    val swaps = turn in 5..8
    val fromRight = turn in setOf(2, 3, 7, 8)
    val fromBelow = turn in setOf(3, 4, 6, 7)
    val width = if (swaps) photo.height else photo.width
    val height = if (swaps) photo.width else photo.height
    val bytes = ByteArray(width * height * channels)
    var place = 0
    for (y in 0 until height) for (x in 0 until width) {
        var column = if (swaps) y else x
        var row = if (swaps) x else y
        if (fromRight) column = photo.width - 1 - column
        if (fromBelow) row = photo.height - 1 - row
        val colour = photo.colours[row * photo.width + column]
        val red = colour shr 16 and 255
        val green = colour shr 8 and 255
        val blue = colour and 255
        if (channels == 1) {
            bytes[place++] = ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) shr 16).toByte()
        } else {
            bytes[place++] = red.toByte()
            bytes[place++] = green.toByte()
            bytes[place++] = blue.toByte()
        }
    }
    return Image(width, height, channels, bytes)
}

/**
 * Scales an axis from [before] places to [after], as Pillow does: bilinear, by a triangle that widens where the image
 * shrinks, with weights of 22 bits. A place holds [step] values.
 */
fun scaled(from: ByteArray, before: Int, after: Int, step: Int): ByteArray {
    if (before == after) return from
    val lines = from.size / (before * step)
    val ratio = before.toDouble() / after
    val reach = max(1.0, ratio)
    val to = ByteArray(lines * after * step)
    for (place in 0 until after) {
        val centre = (place + 0.5) * ratio
        val first = max(0, (centre - reach + 0.5).toInt())
        val last = min(before, (centre + reach + 0.5).toInt())
        val heights = (first until last).map { max(0.0, 1 - abs((it - centre + 0.5) / reach)) }
        val sum = heights.sum()
        val weights = IntArray(heights.size) { (0.5 + heights[it] / sum * (1 shl 22)).toInt() }
        for (line in 0 until lines) for (value in 0 until step) {
            var total = 1 shl 21
            for (i in first until last) {
                total += (from[(line * before + i) * step + value].toInt() and 255) * weights[i - first]
            }
            to[(line * after + place) * step + value] = (total shr 22).coerceIn(0, 255).toByte()
        }
    }
    return to
}
