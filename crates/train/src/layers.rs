//! What holds for some layers only: frozen, thawed later, slower, without decay.

use serde::{Deserialize, Serialize};

use crate::error::{TrainError, refuse};

/// What holds for the parameters whose name matches. Where several match, the last one that says something counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// Name of a parameter; `*` stands for any characters, `?` for one.
    #[serde(rename = "match")]
    pub pattern: String,
    /// Factor of the learning rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning_rate_scale: Option<f64>,
    /// Factor of the optimiser's weight decay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_decay_scale: Option<f64>,
    /// Not trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frozen: Option<bool>,
    /// Trained from this epoch on, the first of which is 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfreeze_epoch: Option<u64>,
}

/// What holds for one parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Treatment {
    pub(crate) rate: f64,
    pub(crate) decay: f64,
    /// First epoch, from 1, in which it is trained; `None`: never.
    pub(crate) from: Option<u64>,
}

impl Treatment {
    pub(crate) fn is_active(&self, epoch: u64) -> bool {
        self.from.is_some_and(|from| epoch >= from)
    }
}

impl Layer {
    pub(crate) fn check(&self) -> Result<(), TrainError> {
        for (name, scale) in
            [("learning_rate_scale", self.learning_rate_scale), ("weight_decay_scale", self.weight_decay_scale)]
        {
            if let Some(s) = scale.filter(|s| !s.is_finite() || *s < 0.0) {
                return Err(refuse(name, s, "0 or more"));
            }
        }
        Ok(())
    }
}

/// What holds for each parameter.
/// # Errors
/// A pattern matches no parameter.
pub(crate) fn treatments(layers: &[Layer], names: &[String]) -> Result<Vec<Treatment>, TrainError> {
    let mut all = vec![Treatment { rate: 1.0, decay: 1.0, from: Some(1) }; names.len()];
    for layer in layers {
        let mut any = false;
        for (name, own) in names.iter().zip(&mut all) {
            if !matches(&layer.pattern, name) {
                continue;
            }
            any = true;
            own.rate = layer.learning_rate_scale.unwrap_or(own.rate);
            own.decay = layer.weight_decay_scale.unwrap_or(own.decay);
            match (layer.frozen, layer.unfreeze_epoch) {
                (_, Some(epoch)) => own.from = Some(epoch),
                (Some(frozen), None) => own.from = if frozen { None } else { Some(1) },
                (None, None) => {}
            }
        }
        if !any {
            let shown: Vec<_> = names.iter().take(12).map(|n| format!("`{n}`")).collect();
            let message = format!("layers: no parameter is named `{}`; there are {}", layer.pattern, shown.join(", "));
            return Err(TrainError::Mismatch { message });
        }
    }
    Ok(all)
}

/// Whether a name matches a pattern of `*` and `?`.
fn matches(pattern: &str, name: &str) -> bool {
    let (p, n): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    // The last star, and where it stopped: it takes one character more whenever what follows it does not fit.
    let (mut i, mut j, mut star) = (0, 0, None);
    while j < n.len() {
        if i < p.len() && p[i] == '*' {
            star = Some((i, j));
            i += 1;
        } else if i < p.len() && (p[i] == '?' || p[i] == n[j]) {
            (i, j) = (i + 1, j + 1);
        } else if let Some((at, taken)) = star {
            star = Some((at, taken + 1));
            (i, j) = (at + 1, taken + 1);
        } else {
            return false;
        }
    }
    p[i..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, name, want) in [
            ("*", "", true),
            ("conv1.*", "conv1.weight", true),
            ("conv1.*", "conv11.weight", false),
            ("*.bias", "a.bias.bias", true),
            ("*a*b", "xxaxxbxb", true),
            ("*a*b", "xxaxxbxc", false),
            ("conv?.weight", "conv2.weight", true),
            ("conv?", "conv", false),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, name), want, "{pattern} {name}");
        }
    }

    #[test]
    fn the_last_word_counts() {
        let names: Vec<String> = ["a.weight", "a.bias", "b.weight"].map(String::from).into();
        let layer = |pattern: &str| Layer {
            pattern: pattern.into(),
            learning_rate_scale: None,
            weight_decay_scale: None,
            frozen: None,
            unfreeze_epoch: None,
        };
        let layers = [
            Layer { frozen: Some(true), ..layer("*") },
            Layer { unfreeze_epoch: Some(3), learning_rate_scale: Some(0.5), ..layer("a.*") },
            Layer { weight_decay_scale: Some(0.0), ..layer("*.bias") },
        ];
        let got = treatments(&layers, &names).unwrap();
        assert_eq!(got[0], Treatment { rate: 0.5, decay: 1.0, from: Some(3) });
        assert_eq!(got[1], Treatment { rate: 0.5, decay: 0.0, from: Some(3) });
        assert_eq!(got[2], Treatment { rate: 1.0, decay: 1.0, from: None });
        assert!(got[0].is_active(3) && !got[0].is_active(2) && !got[2].is_active(99));
        let error = treatments(&[layer("c*")], &names).unwrap_err().to_string();
        assert_eq!(error, "layers: no parameter is named `c*`; there are `a.weight`, `a.bias`, `b.weight`");
    }
}
