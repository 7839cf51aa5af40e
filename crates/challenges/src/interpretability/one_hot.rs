//! Which columns of a table are one feature: the one-hot parts of a category.

use netproof_tensor::Tensor;

use super::Features;

/// Groups neighbouring columns `name=value` or `name_value` of one name whose entries are 0 or 1 and sum to 1 in every row.
/// # Shapes
/// `names`: one per column; `rows [n, columns]`
pub fn one_hot(names: &[String], rows: &Tensor) -> Features {
    let width = names.len();
    let values = rows.as_f32().unwrap_or_default();
    let together = |from: usize, to: usize| {
        values.chunks(width.max(1)).all(|row| {
            let part = &row[from..to];
            part.iter().all(|&v| v == 0.0 || v == 1.0) && part.iter().sum::<f32>() == 1.0
        })
    };
    let prefix = |i: usize, end: usize| names[i].get(..end);
    let (mut of, mut found) = (Vec::with_capacity(width), Vec::new());
    let mut i = 0;
    while i < width {
        let ends = names[i].char_indices().filter(|(_, c)| matches!(c, '=' | '_')).map(|(at, _)| at);
        // The longest name that fits: `marital_status` and not `marital`.
        let best = ends
            .filter_map(|end| {
                let name = prefix(i, end + 1)?;
                let to = (i..width).find(|&j| !names[j].starts_with(name)).unwrap_or(width);
                (to - i >= 2 && together(i, to)).then(|| (to, names[i][..end].to_owned()))
            })
            .max_by_key(|(_, name)| name.len());
        let (to, name) = best.unwrap_or_else(|| (i + 1, names[i].clone()));
        of.extend(std::iter::repeat_n(found.len(), to - i));
        found.push(name);
        i = to;
    }
    Features { of, names: found }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn categories_are_joined_and_numbers_are_not() {
        let names: Vec<String> =
            ["age", "capital_gain", "capital_loss", "marital_status_A", "marital_status_B", "sex=F", "sex=M", "sum"]
                .map(String::from)
                .to_vec();
        let rows = Tensor::f32(
            vec![2, 8],
            vec![30.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 40.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0],
        )
        .unwrap();
        let f = one_hot(&names, &rows);
        assert_eq!(f.names, ["age", "capital_gain", "capital_loss", "marital_status", "sex", "sum"]);
        assert_eq!(f.of, [0, 1, 2, 3, 3, 4, 4, 5]);
    }
}
