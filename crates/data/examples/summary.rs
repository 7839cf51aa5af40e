//! Prints what a data set is: `cargo run -p netproof-data --example summary -- SPEC [LABEL [GROUP,…]]`.
#![allow(clippy::print_stdout)]

use netproof_data::{DataError, Dataset, OnBadRow, OpenOptions};

fn main() -> Result<(), DataError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let options = OpenOptions {
        label: arguments.get(1).filter(|l| !l.is_empty()).cloned(),
        groups: arguments.get(2).map(|g| g.split(',').map(String::from).collect()).unwrap_or_default(),
        on_bad_row: OnBadRow::Skip,
        ..OpenOptions::default()
    };
    let data = Dataset::open(arguments.first().map_or("", String::as_str), &options)?;
    println!("{data:#?}");
    for column in data.columns().iter().take(20) {
        println!("{:?} {} {:?} {:?}", column.role, column.name, column.kind, column.shape);
    }
    for group in data.groups() {
        println!("group {}: {:?}", group.name, group.values);
    }
    println!("{} bad rows {:?}", data.bad_row_count(), &data.bad_rows()[..data.bad_rows().len().min(5)]);
    let mut hasher = data.hasher();
    let (mut rows, mut missing) = (0, 0);
    for batch in data.batches(1024) {
        let batch = batch?;
        rows += batch.len();
        missing += batch.missing;
        hasher.update(&batch);
    }
    println!("{rows} rows, {missing} missing values, content {}", hasher.finish());
    Ok(())
}
