//! Pictures of drawings, the same on every machine: text is drawn with the fonts of the program.

use super::canvas::{FAMILY, font};
use crate::error::Failure;
use resvg::{tiny_skia, usvg};
use std::sync::Arc;

/// Width of a picture, in pixels.
const WIDTH: f32 = 1_770.0;

/// Turns an SVG into a PNG.
pub fn png(svg: &str) -> Result<Vec<u8>, Failure> {
    let tree = usvg::Tree::from_str(svg, &options()).map_err(wrong)?;
    let scale = WIDTH / tree.size().width();
    let height = (tree.size().height() * scale).ceil();
    let mut picture =
        tiny_skia::Pixmap::new(WIDTH as u32, height as u32).ok_or_else(|| wrong("it has no height"))?;
    resvg::render(&tree, tiny_skia::Transform::from_scale(scale, scale), &mut picture.as_mut());
    picture.encode_png().map_err(wrong)
}

fn options() -> usvg::Options<'static> {
    let mut fonts = usvg::fontdb::Database::new();
    for bold in [false, true] {
        fonts.load_font_source(usvg::fontdb::Source::Binary(Arc::new(font(bold))));
    }
    fonts.set_sans_serif_family("DejaVu Sans");
    usvg::Options { fontdb: Arc::new(fonts), font_family: FAMILY.to_owned(), ..usvg::Options::default() }
}

fn wrong(cause: impl std::fmt::Display) -> Failure {
    Failure::Check(format!("a picture of a plot cannot be made: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_shows_without_fonts_of_the_machine() {
        let draw = |text: &str| {
            let svg = format!(
                "<svg viewBox=\"0 0 100 20\" xmlns=\"http://www.w3.org/2000/svg\">\
                 <text x=\"5\" y=\"15\" font-family=\"sans-serif\" font-size=\"12\">{text}</text></svg>"
            );
            tiny_skia::Pixmap::decode_png(&png(&svg).unwrap()).unwrap()
        };
        let inked =
            |picture: &tiny_skia::Pixmap| picture.pixels().iter().filter(|pixel| pixel.alpha() > 128).count();
        assert_eq!(inked(&draw("")), 0);
        assert!(inked(&draw("RTT, ms")) > 5_000);
    }
}
