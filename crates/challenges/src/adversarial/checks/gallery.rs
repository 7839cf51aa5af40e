//! Pictures of what broke the network: the clean picture, the example, and their difference, magnified.

use netproof_audit::{AuditError, Context, Subject};
use netproof_core::{Gallery, GalleryItem, GallerySection};

use crate::adversarial::harness::{Fate, Harness};
use crate::adversarial::loss::argmax;
use crate::adversarial::projection::distance;
use crate::adversarial::rows::row;

/// Examples that are shown.
pub(super) const SHOWN: usize = 8;
/// Least side of a shown picture, in pixels; smaller ones are enlarged by whole numbers.
const SIDE: usize = 84;

/// The first examples with a wrong answer, each with its clean row and the difference; nothing where the rows are no
/// pictures of one or three channels, or nothing was broken.
/// # Errors
/// The network refuses, or a picture cannot be kept.
pub(super) fn gallery(
    harness: &Harness<'_, '_>,
    subject: &Subject,
    cx: &Context<'_>,
) -> Result<Option<Gallery>, AuditError> {
    let &[channels @ (1 | 3), height, width] = harness.victim().row() else { return Ok(None) };
    let broken = |i: &usize| matches!(harness.outcomes()[*i].fate, Fate::Broken(_));
    let shown: Vec<usize> = (0..harness.len()).filter(broken).take(SHOWN).collect();
    let len = harness.victim().row_len();
    let [low, high] = harness.threat().bounds.map(|b| b as f32);
    let mut items = Vec::with_capacity(shown.len());
    for i in shown {
        let (clean, example) = (row(harness.clean(), len, i), row(harness.adversarial(), len, i));
        let said = argmax(&harness.victim().logits(example)?);
        let names = [subject.class_name(harness.labels()[i]), subject.class_name(said)];
        let o = &harness.outcomes()[i];
        let largest = distance(netproof_core::Norm::Linf, clean, example).max(1e-12);
        // Grey is no change; the largest change is black or white.
        let times = 0.5 * f64::from(high - low) / largest;
        let difference: Vec<f32> =
            clean.iter().zip(example).map(|(c, e)| 0.5 * (low + high) + times as f32 * (e - c)).collect();
        let size = [channels, height, width];
        let picture = |title: String, alt: String, values: &[f32]| {
            let (shape, pixels) = pixels(values, size, [low, high]);
            cx.picture(title, alt, shape, &pixels)
        };
        let id = harness.row_ids()[i];
        items.push(GalleryItem {
            title: format!("row {id}: {}, taken for {}", names[0], names[1]),
            note: match o.fate {
                Fate::Broken(stage) => {
                    let by = harness.stages().get(stage).map_or("", |s| s.id.as_str());
                    format!("{by}, {} {:.3}", harness.threat().norm, o.norm)
                }
                _ => String::new(),
            },
            pictures: vec![
                picture(
                    format!("as it is: {}", names[0]),
                    format!("row {id} without a change, which the network takes for {}", names[0]),
                    clean,
                )?,
                picture(
                    format!("changed: {}", names[1]),
                    format!("row {id} after the change, which the network takes for {}", names[1]),
                    example,
                )?,
                picture(
                    format!("difference × {times:.1}"),
                    format!("difference of both, {times:.1} times as large; grey is no change"),
                    &difference,
                )?,
            ],
        });
    }
    let title = format!("Rows that were broken at {}: as they are, changed, and the difference", harness.threat());
    let sections = vec![GallerySection { title: "First rows that were broken".to_owned(), items }];
    Ok((!sections[0].items.is_empty()).then_some(Gallery { title, sections }))
}

/// Values between the bounds as bytes, channels last, enlarged to a side that can be seen; width, height and channels.
fn pixels(values: &[f32], [channels, height, width]: [usize; 3], [low, high]: [f32; 2]) -> ([usize; 3], Vec<u8>) {
    let by = SIDE.div_ceil(height.max(width).max(1)).max(1);
    let byte = |v: f32| (255.0 * ((v - low) / (high - low)).clamp(0.0, 1.0)).round() as u8;
    let mut out = Vec::with_capacity(values.len() * by * by);
    for y in 0..height * by {
        for x in 0..width * by {
            out.extend((0..channels).map(|c| byte(values[(c * height + y / by) * width + x / by])));
        }
    }
    ([width * by, height * by, channels], out)
}

#[cfg(test)]
mod tests {
    use netproof_audit::{Silent, context};
    use netproof_core::{Norm, Threat};
    use netproof_data::{Dataset, Labels, OpenOptions};
    use netproof_stats::Level;
    use netproof_tensor::Tensor;

    use super::*;
    use crate::adversarial::protocol::Method;
    use crate::adversarial::test_support::linear_on;
    use crate::adversarial::victim::Victim;

    #[test]
    fn pictures_are_enlarged_with_channels_last() {
        let (shape, p) = pixels(&[0.0, 1.0, 0.5, 0.25, -1.0, 2.0], [3, 1, 2], [0.0, 1.0]);
        assert_eq!(shape, [84, 42, 3]);
        assert_eq!((p[0..3].to_vec(), p[83 * 3..84 * 3].to_vec()), (vec![0, 128, 0], vec![255, 64, 255]));
    }

    #[test]
    fn broken_rows_are_shown_with_their_difference() {
        let mut w = [[0.0f32; 16]; 2];
        w[1][5] = 1.0;
        let model = linear_on(&[1, 4, 4], &w, &[0.5, 0.0]);
        let x = Tensor::f32(vec![4, 1, 4, 4], (0..64).map(|i| if i % 16 == 5 { 0.6 } else { 0.2 }).collect()).unwrap();
        let labels = vec![1; 4];
        let data =
            Dataset::from_memory(x.clone(), Labels::Classes(labels.clone()), Vec::new(), &OpenOptions::default());
        let subject = Subject::new(model, "m", data.unwrap(), None).unwrap();
        let card = &super::super::robust_accuracy::CARD;
        let cx = context(&subject, card, "{}", 1, Level::P95, &Silent).unwrap();
        let v = Victim::of(&subject).unwrap();
        let threat = |e| Threat::new(Norm::Linf, e, [0.0, 1.0]).unwrap();
        let mut h = Harness::new(&v, threat(0.2), &x, &labels, &[7, 8, 9, 10], 0, &Silent).unwrap();
        Method::find("fgsm", &toml::Table::new()).unwrap().run(&mut h, &[]).unwrap();
        let found = gallery(&h, &subject, &cx).unwrap().unwrap();
        let item = &found.sections[0].items[0];
        assert_eq!((found.sections[0].items.len(), item.pictures.len()), (4, 3));
        assert!(item.title.contains("row 7: 1, taken for 0") && item.note.contains("fgsm, linf 0.200"), "{item:?}");
        assert_eq!(item.pictures[2].title, "difference × 2.5");
        let h = Harness::new(&v, threat(0.2), &x, &labels, &[7, 8, 9, 10], 0, &Silent).unwrap();
        assert_eq!(gallery(&h, &subject, &cx).unwrap(), None);
    }
}
