// A thumbnail of a JPEG: {"image": base64, "size": pixels} gives {"image": base64, "width": ..., "height": ...}.
const sharp = require("sharp");

exports.handler = async (event) => {
  const picture = sharp(Buffer.from(event.image, "base64"));
  const { width, height } = await picture.metadata();
  const { data, info } = await picture
    .resize(event.size, event.size, { fit: "inside" })
    .jpeg()
    .toBuffer({ resolveWithObject: true });
  return { image: data.toString("base64"), width: info.width, height: info.height, original: [width, height] };
};
