//! Order, determinism and bounds of what is held.

mod common;

use common::{Folder, all, open, values};
use netproof_data::{DataError, Dataset, Labels, OpenOptions, write_npz, write_parquet};
use netproof_tensor::{DType, Elements, Tensor};

fn sample(rows: usize) -> Dataset {
    let x =
        Tensor::f32(vec![rows, 4], (0..rows * 4).map(|i| (i / 4) as f32 + (i % 4) as f32 / 10.0).collect()).unwrap();
    let labels = Labels::Classes((0..rows).map(|i| i % 3).collect());
    let groups = vec![("site".to_string(), (0..rows).map(|i| format!("s{}", i % 2)).collect())];
    Dataset::from_memory(x, labels, groups, &OpenOptions::default()).unwrap()
}

/// The same rows as Parquet, as packed NPZ and as CSV.
fn files(folder: &Folder, data: &Dataset) -> Vec<String> {
    let batch = all(data);
    let parquet = folder.path("d.parquet");
    write_parquet(data, &parquet).unwrap();
    let npz = folder.path("d.npz");
    let y =
        Tensor::i64(vec![batch.len()], batch.labels.classes().unwrap().iter().map(|&c| c as i64).collect()).unwrap();
    let sites = (0..batch.len()).map(|i| format!("s{}", i % 2)).collect();
    let site = Tensor::new(DType::Text, vec![batch.len()], Elements::Text(sites)).unwrap();
    write_npz(&npz, &[("x", &batch.features), ("y", &y), ("site", &site)]).unwrap();
    let mut csv = String::from("a,b,c,d,site,y\n");
    for (i, row) in batch.rows().enumerate() {
        csv += &format!("{},{},{},{},s{},{}\n", row[0], row[1], row[2], row[3], i % 2, i % 3);
    }
    let csv = folder.file("d.csv", csv);
    vec![parquet.to_str().unwrap().into(), npz.to_str().unwrap().into(), csv]
}

fn with_site(memory: u64) -> OpenOptions {
    let mut options = OpenOptions { groups: vec!["site".into()], ..OpenOptions::default() };
    options.limits.memory_bytes = memory;
    options
}

#[test]
fn the_hash_depends_on_content_and_order_only() {
    let folder = Folder::new();
    let data = sample(500);
    let hash = data.content_hash().unwrap();
    for spec in files(&folder, &data) {
        let other = Dataset::open(&spec, &with_site(1 << 20)).unwrap();
        assert_eq!(other.content_hash().unwrap(), hash, "{spec}");
        let mut hasher = other.hasher();
        other.batches(7).for_each(|b| hasher.update(&b.unwrap()));
        assert_eq!(hasher.finish(), hash);
        assert_eq!(all(&other).row_hashes(), all(&data).row_hashes());
    }
    assert_ne!(data.take(499).content_hash().unwrap(), hash);
    assert_ne!(data.select(&(0..500).rev().collect::<Vec<_>>()).unwrap().content_hash().unwrap(), hash);
    // One changed value, label or group changes it.
    for changed in 0..3 {
        let batch = all(&data);
        let mut x = batch.features.clone();
        let mut labels = batch.labels.clone();
        let mut sites: Vec<String> = (0..500).map(|i| format!("s{}", i % 2)).collect();
        match (changed, &mut labels) {
            (0, _) => x.as_f32_mut().unwrap()[1999] += 1.0,
            (1, Labels::Classes(v)) => v[499] = 2,
            _ => sites[499] = "s0".into(),
        }
        let other = Dataset::from_memory(x, labels, vec![("site".into(), sites)], &OpenOptions::default()).unwrap();
        assert_ne!(other.content_hash().unwrap(), hash, "{changed}");
    }
}

#[test]
fn zero_and_nan_have_one_hash_each() {
    let row = |v: f32| {
        let x = Tensor::f32(vec![1, 1], vec![v]).unwrap();
        all(&Dataset::from_memory(x, Labels::None, Vec::new(), &OpenOptions::default()).unwrap()).row_hashes()[0]
    };
    assert_eq!(row(0.0), row(-0.0));
    assert_eq!(row(f32::NAN), row(f32::from_bits(0xffc0_0001)));
    assert_ne!(row(1.0), row(-1.0));
}

#[test]
fn batches_are_the_same_however_they_are_cut() {
    let folder = Folder::new();
    let data = sample(101);
    for spec in files(&folder, &data) {
        let data = Dataset::open(&spec, &with_site(1 << 20)).unwrap();
        let whole = all(&data);
        for size in [1, 7, 100, 101, 1000] {
            let parts: Vec<_> = data.batches(size).map(|b| b.unwrap()).collect();
            assert_eq!(parts.len(), 101usize.div_ceil(size));
            let joined: Vec<f32> = parts.iter().flat_map(|b| values(b).to_vec()).collect();
            assert_eq!(joined, values(&whole), "{spec} {size}");
        }
        let annotations = data.annotations().unwrap();
        assert_eq!((annotations.labels, annotations.groups), (whole.labels, whole.groups));
    }
}

#[test]
fn any_order_gives_the_rows_asked_for_with_little_memory_too() {
    let folder = Folder::new();
    let data = sample(400);
    let order: Vec<usize> = (0..400).map(|i| i * 37 % 400).chain([0, 0, 399]).collect();
    for spec in files(&folder, &data) {
        // A window of some dozen rows, a quarter of all rows, and everything.
        for memory in [4_000, 30_000, 1 << 20] {
            let data = Dataset::open(&spec, &with_site(memory)).unwrap();
            match data.batches_in(&order, 16) {
                Ok(batches) => {
                    let rows: Vec<_> = batches.map(|b| b.unwrap()).collect();
                    let ids: Vec<u64> = rows.iter().flat_map(|b| b.row_ids.clone()).collect();
                    assert_eq!(ids, order.iter().map(|&r| r as u64).collect::<Vec<_>>());
                    let firsts: Vec<f32> =
                        rows.iter().flat_map(|b| b.rows().map(|r| r[0]).collect::<Vec<_>>()).collect();
                    assert_eq!(firsts, order.iter().map(|&r| r as f32).collect::<Vec<_>>());
                    let right = |b: &netproof_data::Batch| {
                        b.row_ids.iter().zip(b.labels.classes().unwrap()).all(|(&id, &c)| id as usize % 3 == c)
                    };
                    assert!(rows.iter().all(right), "{spec} {memory}");
                }
                // Packed files that do not fit are refused, not read a hundred times.
                Err(DataError::Order { .. }) => {
                    assert!(memory == 4_000 && !spec.ends_with("parquet"), "{spec} {memory}")
                }
                Err(e) => panic!("{spec} {memory}: {e}"),
            }
        }
        let data = Dataset::open(&spec, &with_site(4_000)).unwrap();
        assert!(matches!(data.batches_in(&[400], 1), Err(DataError::Row { row: 400, rows: 400 })));
        assert_eq!(all(&data.select(&[7, 3]).unwrap().select(&[1]).unwrap()).row_ids, [3]);
    }
}

#[test]
fn shuffling_is_a_function_of_the_seed() {
    let folder = Folder::new();
    let data = sample(5000);
    let parquet = &files(&folder, &data)[0];
    let ids = |data: &Dataset, batch, seed, epoch| -> Vec<u64> {
        data.shuffled(batch, seed, epoch).unwrap().flat_map(|b| b.unwrap().row_ids).collect()
    };
    for memory in [1 << 22, 20_000] {
        let data = Dataset::open(parquet, &with_site(memory)).unwrap();
        let first = ids(&data, 64, 1, 0);
        assert_eq!(first, ids(&Dataset::open(parquet, &with_site(memory)).unwrap(), 64, 1, 0));
        assert_ne!(first, ids(&data, 64, 2, 0));
        assert_ne!(first, ids(&data, 64, 1, 1));
        let mut sorted = first.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..5000).collect::<Vec<_>>(), "every row once");
        let stays = first.windows(2).filter(|w| w[1] == w[0] + 1).count();
        assert!(stays < 250, "{stays} neighbours stay neighbours with {memory} bytes");
        let early = first[..500].iter().filter(|&&i| i < 500).count();
        assert!(early < 150, "{early} of the first tenth stay there");
    }
}

#[test]
fn memory_data_sets_are_checked_like_files() {
    let x = Tensor::f32(vec![2, 1], vec![1.0, 2.0]).unwrap();
    let options = OpenOptions::default();
    let short = Dataset::from_memory(x.clone(), Labels::Classes(vec![0]), Vec::new(), &options);
    assert!(matches!(short, Err(DataError::RowCount { rows: 1, expected: 2, .. })));
    let nan = Dataset::from_memory(x, Labels::Targets(vec![0.0, f32::NAN]), Vec::new(), &options);
    assert!(matches!(nan, Err(DataError::BadRow { row: 1, .. })));
    let empty = Tensor::f32(vec![0, 3], Vec::new()).unwrap();
    let empty = Dataset::from_memory(empty, Labels::None, Vec::new(), &options).unwrap();
    assert!(empty.is_empty() && all(&empty).features.shape() == [0, 3] && empty.batches(4).next().is_none());
    assert!(open("").is_err());
}
