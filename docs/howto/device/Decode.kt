import java.awt.image.IndexColorModel
import java.io.ByteArrayInputStream
import javax.imageio.ImageIO

/** Decodes a photo on a JVM. */
fun decoded(file: ByteArray): Pixels {
    val image = requireNotNull(ImageIO.read(ByteArrayInputStream(file))) { "The photo is in no format that is known." }
    require(image.colorModel.getComponentSize(0) <= 8) { "The photo has more than 8 bits per value." }
    if (image.raster.numBands > 2 || image.colorModel is IndexColorModel) {
        return Pixels(image.width, image.height, image.getRGB(0, 0, image.width, image.height, null, 0, image.width))
    }
    // getRGB would brighten grey images: it takes their values for light, not for sRGB.
    val grey = image.raster.getSamples(0, 0, image.width, image.height, 0, null as IntArray?)
    return Pixels(image.width, image.height, IntArray(grey.size) { grey[it] * 0x010101 })
}
