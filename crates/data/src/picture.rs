//! PNG and JPEG files as `[channels, height, width]` bytes.
//!
//! Grey from colour: ITU-R 601-2 luma in fixed point, as Pillow's `convert("L")`. Resizing: triangle filter widened when
//! shrinking, in two passes with 22-bit weights, bit for bit as Pillow's `resize(…, BILINEAR)`. 16-bit samples lose
//! their low byte, transparency is dropped, animations give their first frame, orientation tags are not applied.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use crate::Limits;

/// Rows of interleaved pixels.
pub(crate) struct Picture {
    channels: usize,
    height: usize,
    width: usize,
    pixels: Vec<u8>,
}

impl Picture {
    /// `[channels, height, width]`; alpha does not count.
    pub(crate) fn size(&self) -> [usize; 3] {
        [if self.channels < 3 { 1 } else { 3 }, self.height, self.width]
    }

    /// Decodes a file, or says why it cannot be.
    pub(crate) fn read(path: &Path, limits: &Limits) -> Result<Self, String> {
        let kind = std::fs::symlink_metadata(path).map_err(|e| e.to_string())?;
        if !kind.is_file() {
            return Err("is a link or no regular file".into());
        }
        if kind.len() > limits.image_bytes {
            return Err(format!("has {} bytes, over the limit image_bytes = {}", kind.len(), limits.image_bytes));
        }
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(|e| e.to_string())?;
        file.take(limits.image_bytes).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
        Self::decode(bytes, limits)
    }

    pub(crate) fn decode(bytes: Vec<u8>, limits: &Limits) -> Result<Self, String> {
        match bytes.as_slice() {
            [0x89, b'P', b'N', b'G', ..] => decode_png(bytes, limits),
            [0xff, 0xd8, ..] => decode_jpeg(bytes, limits),
            [] => Err("is empty".into()),
            _ => Err("is neither PNG nor JPEG".into()),
        }
    }

    /// The pixels in another size and number of channels, one channel after the other.
    pub(crate) fn into_planes(self, [channels, height, width]: [usize; 3]) -> Vec<u8> {
        let mut picture = self.with_channels(channels);
        if (picture.height, picture.width) != (height, width) {
            picture = picture.resized(height, width);
        }
        let n = height * width;
        let mut planes = vec![0; channels * n];
        for (i, pixel) in picture.pixels.chunks_exact(channels).enumerate() {
            pixel.iter().enumerate().for_each(|(c, &v)| planes[c * n + i] = v);
        }
        planes
    }

    /// Grey (1) or colour (3).
    fn with_channels(self, channels: usize) -> Self {
        let have = self.channels;
        if have == channels {
            return self;
        }
        let pixels = self.pixels.chunks_exact(have);
        let pixels = match (have < 3, channels) {
            (true, 1) => pixels.map(|p| p[0]).collect(),
            (true, _) => pixels.flat_map(|p| [p[0]; 3]).collect(),
            (false, 1) => pixels.map(luma).collect(),
            (false, _) => pixels.flat_map(|p| [p[0], p[1], p[2]]).collect(),
        };
        Self { channels, pixels, ..self }
    }

    fn resized(self, height: usize, width: usize) -> Self {
        let c = self.channels;
        let columns = weights(self.width, width);
        let mut narrow = vec![0; self.height * width * c];
        for (row, out) in self.pixels.chunks_exact(self.width * c).zip(narrow.chunks_exact_mut(width * c)) {
            for (x, (start, weights)) in columns.iter().enumerate() {
                for channel in 0..c {
                    let sum = weights.iter().enumerate().map(|(k, &w)| w * i64::from(row[(start + k) * c + channel]));
                    out[x * c + channel] = rounded(sum.sum());
                }
            }
        }
        let mut pixels = vec![0; height * width * c];
        let row_len = width * c;
        for ((start, weights), out) in weights(self.height, height).iter().zip(pixels.chunks_exact_mut(row_len)) {
            for (i, value) in out.iter_mut().enumerate() {
                let sum = weights.iter().enumerate().map(|(k, &w)| w * i64::from(narrow[(start + k) * row_len + i]));
                *value = rounded(sum.sum());
            }
        }
        Self { channels: c, height, width, pixels }
    }
}

const WEIGHT_BITS: u32 = 22;

fn rounded(sum: i64) -> u8 {
    ((sum + (1 << (WEIGHT_BITS - 1))) >> WEIGHT_BITS).clamp(0, 255) as u8
}

/// For each output position the first input position and the weights from there on, in units of 2⁻²².
fn weights(from: usize, to: usize) -> Vec<(usize, Vec<i64>)> {
    let scale = from as f64 / to as f64;
    let support = scale.max(1.0);
    (0..to)
        .map(|i| {
            let center = (i as f64 + 0.5) * scale;
            let start = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(from);
            let raw: Vec<f64> =
                (start..end).map(|j| (1.0 - ((j as f64 - center + 0.5) / support).abs()).max(0.0)).collect();
            let sum: f64 = raw.iter().sum();
            let unit = f64::from(1u32 << WEIGHT_BITS);
            (start, raw.iter().map(|w| (w / sum * unit + 0.5) as i64).collect())
        })
        .collect()
}

fn luma(p: &[u8]) -> u8 {
    let sum = u32::from(p[0]) * 19_595 + u32::from(p[1]) * 38_470 + u32::from(p[2]) * 7_471;
    ((sum + 0x8000) >> 16) as u8
}

fn check_size(width: usize, height: usize, limits: &Limits) -> Result<(), String> {
    let pixels = width as u64 * height as u64;
    if width > limits.image_side || height > limits.image_side || pixels > limits.image_pixels {
        return Err(format!(
            "is {width} × {height} pixels, over the limits image_side = {} and image_pixels = {}",
            limits.image_side, limits.image_pixels
        ));
    }
    if pixels == 0 {
        return Err("has no pixels".into());
    }
    Ok(())
}

fn decode_png(bytes: Vec<u8>, limits: &Limits) -> Result<Picture, String> {
    let budget = usize::try_from(limits.image_pixels.saturating_mul(4)).unwrap_or(usize::MAX);
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), png::Limits { bytes: budget });
    // Compressed texts and colour profiles can unpack to gigabytes and say nothing about the pixels.
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::STRIP_16);
    let cannot = |e: png::DecodingError| format!("is a damaged PNG: {e}");
    let header = decoder.read_header_info().map_err(cannot)?;
    check_size(header.width as usize, header.height as usize, limits)?;
    let mut reader = decoder.read_info().map_err(cannot)?;
    let size = reader.output_buffer_size().filter(|&s| s <= budget).ok_or("needs too much memory")?;
    let mut pixels = vec![0; size];
    let info = reader.next_frame(&mut pixels).map_err(cannot)?;
    let (width, height, channels) = (info.width as usize, info.height as usize, info.color_type.samples());
    // The first frame of an animation may be smaller than the canvas.
    check_size(width, height, limits)?;
    if info.bit_depth != png::BitDepth::Eight || width * height * channels > pixels.len() {
        return Err("is a PNG of an unexpected layout".into());
    }
    pixels.truncate(width * height * channels);
    Ok(Picture { channels, height, width, pixels })
}

fn decode_jpeg(bytes: Vec<u8>, limits: &Limits) -> Result<Picture, String> {
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(limits.image_side)
        .set_max_height(limits.image_side)
        .jpeg_set_max_scans(100);
    let cannot = |e: zune_jpeg::errors::DecodeErrors| format!("is a damaged JPEG: {e}");
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(cannot)?;
    let (width, height) = decoder.dimensions().ok_or("is a JPEG without a size")?;
    check_size(width, height, limits)?;
    let grey = decoder.input_colorspace() == Some(ColorSpace::Luma);
    let wanted = if grey { ColorSpace::Luma } else { ColorSpace::RGB };
    decoder.set_options(options.jpeg_set_out_colorspace(wanted));
    let pixels = decoder.decode().map_err(cannot)?;
    let channels = if grey { 1 } else { 3 };
    if pixels.len() != width * height * channels {
        return Err("is a JPEG of an unexpected layout".into());
    }
    Ok(Picture { channels, height, width, pixels })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resizing_agrees_with_pillow() {
        // PIL.Image.fromarray(numpy.arange(0, 256, 16, uint8).reshape(4, 4)).resize(…, BILINEAR), Pillow 12.
        let source = || Picture { channels: 1, height: 4, width: 4, pixels: (0..16).map(|i| i * 16).collect() };
        assert_eq!(source().resized(2, 2).pixels, PILLOW_2X2);
        assert_eq!(source().resized(3, 5).pixels, PILLOW_3X5);
        assert_eq!(source().resized(4, 4).pixels, source().pixels);
    }

    const PILLOW_2X2: [u8; 4] = [57, 83, 157, 183];
    const PILLOW_3X5: [u8; 15] = [19, 30, 43, 56, 67, 96, 107, 120, 133, 144, 173, 184, 197, 210, 221];

    #[test]
    fn channels_are_converted_and_laid_out_in_planes() {
        let colour = || Picture { channels: 3, height: 1, width: 2, pixels: vec![255, 0, 0, 10, 20, 30] };
        assert_eq!(colour().into_planes([3, 1, 2]), [255, 10, 0, 20, 0, 30]);
        // Pillow gives 76 and 18 for these two pixels.
        assert_eq!(colour().into_planes([1, 1, 2]), [76, 18]);
        let grey_alpha = Picture { channels: 2, height: 1, width: 2, pixels: vec![7, 0, 9, 255] };
        assert_eq!(grey_alpha.into_planes([3, 1, 2]), [7, 9, 7, 9, 7, 9]);
    }

    #[test]
    fn hostile_pictures_are_refused_before_they_are_unpacked() {
        let limits = Limits::default();
        let decode = |bytes: &[u8]| Picture::decode(bytes.to_vec(), &limits).err().unwrap();
        assert!(decode(b"").contains("empty"));
        assert!(decode(b"GIF89a").contains("neither"));
        assert!(decode(b"\x89PNG\r\n\x1a\n").contains("damaged"));
        assert!(decode(&[0xff, 0xd8, 0xff]).contains("damaged"));
        // A header of 100,000 by 100,000 pixels in 33 bytes.
        let mut huge = b"\x89PNG\r\n\x1a\n".to_vec();
        let mut header = b"IHDR".to_vec();
        header.extend(100_000u32.to_be_bytes());
        header.extend(100_000u32.to_be_bytes());
        header.extend([8, 6, 0, 0, 0]);
        let mut crc = flate2::Crc::new();
        crc.update(&header);
        huge.extend(13u32.to_be_bytes());
        huge.extend(&header);
        huge.extend(crc.sum().to_be_bytes());
        assert!(decode(&huge).contains("100000 × 100000"), "{}", decode(&huge));
        // A JPEG frame of 65,535 by 65,535.
        let jpeg = [
            0xff, 0xd8, 0xff, 0xc0, 0, 17, 8, 0xff, 0xff, 0xff, 0xff, 3, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0, 0xff, 0xd9,
        ];
        decode(&jpeg);
    }
}
