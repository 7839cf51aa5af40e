//! Colours: one diverging map for signed numbers, one sequential for sizes.

/// ColorBrewer's RdBu in eleven steps, blue to red.
const DIVERGING: [[u8; 3]; 11] = [
    [5, 48, 97],
    [33, 102, 172],
    [67, 147, 195],
    [146, 197, 222],
    [209, 229, 240],
    [247, 247, 247],
    [253, 219, 199],
    [244, 165, 130],
    [214, 96, 77],
    [178, 24, 43],
    [103, 0, 31],
];

/// Viridis in six steps.
const SEQUENTIAL: [[u8; 3]; 6] =
    [[68, 1, 84], [65, 68, 135], [42, 120, 142], [34, 168, 132], [122, 209, 81], [253, 231, 37]];

fn between(steps: &[[u8; 3]], t: f32) -> [u8; 3] {
    let at = t.clamp(0.0, 1.0) * (steps.len() - 1) as f32;
    let low = (at.floor() as usize).min(steps.len() - 2);
    std::array::from_fn(|c| mix(steps[low][c], steps[low + 1][c], at - low as f32))
}

pub(super) fn mix(a: u8, b: u8, t: f32) -> u8 {
    (f32::from(a) + (f32::from(b) - f32::from(a)) * t).round() as u8
}

/// Colour of a number from −1 to 1.
pub(super) fn diverging(v: f32) -> [u8; 3] {
    if v.is_nan() { [160, 160, 160] } else { between(&DIVERGING, 0.5 + 0.5 * v) }
}

/// Colour of a number from 0 to 1.
pub(super) fn sequential(v: f32) -> [u8; 3] {
    if v.is_nan() { [160, 160, 160] } else { between(&SEQUENTIAL, v) }
}

/// The colour as SVG writes it.
pub(super) fn hex([r, g, b]: [u8; 3]) -> String {
    format!("#{r:02x}{g:02x}{b:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_white_and_the_ends_are_blue_and_red() {
        assert_eq!(diverging(0.0), [247, 247, 247]);
        assert_eq!((diverging(-1.0), diverging(2.0)), ([5, 48, 97], [103, 0, 31]));
        assert!(sequential(0.0) != sequential(1.0) && hex([1, 2, 255]) == "#0102ff");
    }
}
