//! Pictures of explanations as pixels and SVG text; whoever calls writes them.
//!
//! Maps are diverging and centred at zero, blue below and red above (ColorBrewer's RdBu, which colour-blind readers tell
//! apart), and every picture shows its scale.

mod canvas;
mod colour;
mod heads;
mod images;
mod tables;

pub use canvas::Canvas;
pub use heads::heads;
pub use images::{ImageRow, image_row, panels, picture};
pub use tables::{Column, beeswarm, marked, waterfall};

/// A number with three significant digits, for captions.
pub(crate) fn short(v: f64) -> String {
    if v == 0.0 || !v.is_finite() {
        return if v == 0.0 { "0".to_owned() } else { v.to_string() };
    }
    let text = match v.abs() {
        a if a >= 100.0 => format!("{v:.0}"),
        a if a >= 10.0 => format!("{v:.1}"),
        a if a >= 1.0 => format!("{v:.2}"),
        a if a >= 0.1 => format!("{v:.3}"),
        a if a >= 0.001 => format!("{v:.4}"),
        _ => format!("{v:.1e}"),
    };
    text.replace('-', "−")
}
