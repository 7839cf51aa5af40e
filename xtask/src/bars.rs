//! `cargo xtask bars`: how good Netproof must be, measured end to end and by hand.
//!
//! These take minutes, need the network or reference data, and some depend on the machine: none of them is a
//! test. Each row of [`BARS`] measures one figure; what cannot be measured here is skipped with the reason.
//! Downloads and figures stay in `.bars/`, which git ignores.

mod adversarial;
mod audit;
mod build;
mod defences;
mod explanations;
mod explanations_evidence;
mod onnx;
mod process;
mod python;
mod training;

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, bail};

use crate::command;

/// Something Netproof must reach.
pub(crate) struct Bar {
    name: &'static str,
    /// The bar, in words.
    bar: &'static str,
    /// Whether it is measured without being named.
    by_default: bool,
    measure: fn(&Bench) -> anyhow::Result<Measured>,
}

/// What a measurement came to.
pub(crate) enum Measured {
    /// A figure, and whether it reaches the bar.
    Figure { figure: String, pass: bool },
    /// This machine lacks something that the measurement needs.
    Skipped(String),
}

/// Every bar.
pub(crate) static BARS: &[Bar] = &[
    Bar { name: "crates", bar: "at most 400 crates", by_default: true, measure: build::crates },
    Bar { name: "cold-build", bar: "at most 10 min on two cores", by_default: false, measure: build::cold_build },
    Bar { name: "start-up", bar: "median under 30 ms", by_default: true, measure: build::start_up },
    Bar {
        name: "fashion-audit",
        bar: "under 60 s and 1 GiB on two cores",
        by_default: true,
        measure: audit::fashion_audit,
    },
    Bar {
        name: "big-parquet",
        bar: "4 GiB finish under a limit of 1 GiB",
        by_default: true,
        measure: audit::big_parquet,
    },
    Bar {
        name: "conformance",
        bar: "at least 950 of 1,428 pass, 0 wrong",
        by_default: true,
        measure: onnx::conformance,
    },
    Bar {
        name: "kernels",
        bar: "every ratio of the table of benchmarks, beside PyTorch and onnxruntime",
        by_default: false,
        measure: build::kernels,
    },
    Bar {
        name: "kernels-sanitizer",
        bar: "the tests of the kernels pass under the address sanitizer",
        by_default: false,
        measure: build::sanitizer,
    },
    Bar {
        name: "shortcut",
        bar: "a corner block that codes the class is found, four networks without one are not accused",
        by_default: true,
        measure: explanations_evidence::shortcut,
    },
    Bar {
        name: "sanity",
        bar: "untrained and shuffled: guided backpropagation fails, gradients and Grad-CAM pass",
        by_default: true,
        measure: explanations_evidence::sanity,
    },
    Bar {
        name: "selftest",
        bar: "no case fails, under 60 s on two cores",
        by_default: true,
        measure: explanations_evidence::selftest,
    },
    Bar { name: "golden", bar: "every recorded value within 1e-4", by_default: true, measure: onnx::golden },
    Bar { name: "round-trip", bar: "onnxruntime gives the same to 1e-5", by_default: true, measure: onnx::round_trip },
    Bar {
        name: "integrated-gradients",
        bar: "at most 1.2 times Captum's time and half its memory",
        by_default: false,
        measure: explanations::integrated_gradients,
    },
    Bar {
        name: "packages",
        bar: "magika and a rapidocr agree to 1e-4, none wrong",
        by_default: true,
        measure: onnx::packages,
    },
    Bar {
        name: "bounds",
        bar: "IBP, CROWN-IBP and CROWN of auto_LiRPA's networks as written out in float64, to 1e-4; attacked points within",
        by_default: false,
        measure: adversarial::bounds,
    },
    Bar {
        name: "trades",
        bar: "AutoAttack: 199 of 200 rows as recorded, 1.2 of PyTorch's time; cascade: within 0.5 points, a quarter",
        by_default: false,
        measure: adversarial::trades,
    },
    Bar {
        name: "trades-cascade",
        bar: "92.8 % ± 0.3 of 10,000 rows stand",
        by_default: false,
        measure: adversarial::trades_cascade,
    },
    Bar {
        name: "fashion-attack-0.02",
        bar: "AutoAttack: 199 of 200 rows as recorded, 1.2 of PyTorch's time; cascade: within 0.5 points, a quarter",
        by_default: false,
        measure: adversarial::fashion_small,
    },
    Bar {
        name: "fashion-attack-0.05",
        bar: "AutoAttack: 199 of 200 rows as recorded, 1.2 of PyTorch's time; cascade: within 0.5 points, a tenth",
        by_default: false,
        measure: adversarial::fashion_large,
    },
    Bar { name: "mnist-cnn", bar: "at least 99.0 % after 5 epochs", by_default: false, measure: training::mnist_cnn },
    Bar {
        name: "pytorch-training",
        bar: "losses of 20 steps within 1e-3, accuracy within 0.2 points",
        by_default: false,
        measure: training::pytorch_training,
    },
    Bar {
        name: "wrong-labels",
        bar: "80 % flagged, half of them wrong, fix gives 5 points",
        by_default: false,
        measure: training::wrong_labels,
    },
    Bar {
        name: "fine-tune",
        bar: "loss falls, accuracy not lower, onnxruntime agrees",
        by_default: false,
        measure: training::fine_tune,
    },
    Bar {
        name: "training-kills",
        bar: "100 kills, bit-identical",
        by_default: false,
        measure: training::training_kills,
    },
    Bar {
        name: "training-throughput",
        bar: "printed beside PyTorch's",
        by_default: false,
        measure: training::training_throughput,
    },
    Bar {
        name: "fast-training",
        bar: "small CNN, MNIST, linf 0.3, 10 epochs: 98 % clean, 80 % under cascade",
        by_default: false,
        measure: defences::fast,
    },
    Bar {
        name: "trades-training",
        bar: "the same with TRADES: 86 % under cascade, above fast",
        by_default: false,
        measure: defences::trades,
    },
];

/// Where bars are measured.
pub(crate) struct Bench {
    root: PathBuf,
    binary: OnceCell<PathBuf>,
}

impl Bench {
    /// The release binary, built on first use, or the one that `NETPROOF_BINARY` names.
    fn netproof(&self) -> anyhow::Result<&Path> {
        if let (None, Some(named)) = (self.binary.get(), std::env::var_os("NETPROOF_BINARY")) {
            let _ = self.binary.set(named.into());
        }
        if self.binary.get().is_none() {
            let mut build = command::cargo(&self.root);
            build.arg("build").args(command::quiet()).args(["--release", "--package", "netproof-cli"]);
            build.arg("--message-format=json-render-diagnostics");
            let built = crate::generate::executable(&command::output(&mut build)?);
            let _ = self.binary.set(built.context("cargo built no binary named `netproof`")?);
        }
        self.binary.get().map(PathBuf::as_path).context("the binary was just built")
    }

    /// A folder under `.bars/`, made if it is not there.
    fn folder(&self, name: &str) -> anyhow::Result<PathBuf> {
        let folder = self.root.join(".bars").join(name);
        std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        Ok(folder)
    }

    /// The reference values beside the repository, where they are.
    fn golden(&self) -> Option<PathBuf> {
        Some(self.root.parent()?.join("shared/golden")).filter(|folder| folder.is_dir())
    }
}

/// Measures the bars that `arguments` ask for and prints a table.
pub(crate) fn run(root: &Path, arguments: &[&str]) -> anyhow::Result<ExitCode> {
    let mut only = Vec::new();
    let bench = Bench { root: root.to_path_buf(), binary: OnceCell::new() };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match *argument {
            "--list" => {
                for bar in BARS {
                    println!("{:<20} {}{}", bar.name, bar.bar, if bar.by_default { "" } else { " (only when named)" });
                }
                return Ok(ExitCode::SUCCESS);
            }
            "--only" => only.push(*rest.next().context("--only needs the name of a bar; see `--list`")?),
            "--binary" => {
                let path = rest.next().context("--binary needs a path")?;
                let path = std::path::absolute(path).with_context(|| format!("resolving {path}"))?;
                let _ = bench.binary.set(path);
            }
            other => bail!("unknown argument `{other}`; `cargo xtask help` lists them"),
        }
    }
    let mut rows = Vec::new();
    for bar in chosen(&only)? {
        let start = Instant::now();
        eprintln!("measuring {} …", bar.name);
        // A measurement that breaks down is a bar not reached, and the others are still worth having.
        let measured = (bar.measure)(&bench)
            .unwrap_or_else(|error| Measured::Figure { figure: format!("{error:#}"), pass: false });
        eprintln!("measured {} in {:.1} s", bar.name, start.elapsed().as_secs_f64());
        rows.push((bar, measured));
    }
    print!("{}", table(&rows));
    let failed = rows.iter().any(|(_, measured)| matches!(measured, Measured::Figure { pass: false, .. }));
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn chosen(only: &[&str]) -> anyhow::Result<Vec<&'static Bar>> {
    for name in only {
        if !BARS.iter().any(|bar| bar.name == *name) {
            let names: Vec<&str> = BARS.iter().map(|bar| bar.name).collect();
            bail!("no bar `{name}`; there are {}", names.join(", "));
        }
    }
    let wanted = |bar: &&Bar| if only.is_empty() { bar.by_default } else { only.contains(&bar.name) };
    Ok(BARS.iter().filter(wanted).collect())
}

fn table(rows: &[(&Bar, Measured)]) -> String {
    let mut cells = vec![["name".to_owned(), "bar".to_owned(), "figure".to_owned(), "verdict".to_owned()]];
    for (bar, measured) in rows {
        let (figure, verdict) = match measured {
            Measured::Figure { figure, pass: true } => (figure, "pass"),
            Measured::Figure { figure, pass: false } => (figure, "FAIL"),
            Measured::Skipped(reason) => (reason, "skipped"),
        };
        cells.push([bar.name.into(), bar.bar.into(), figure.clone(), verdict.into()]);
    }
    let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    let line = |row: &[String; 4]| {
        let [a, b, c] = widths;
        format!("{:<a$} | {:<b$} | {:<c$} | {}\n", row[0], row[1], row[2], row[3])
    };
    cells.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_have_names_of_their_own() {
        for (i, bar) in BARS.iter().enumerate() {
            assert!(BARS[..i].iter().all(|other| other.name != bar.name), "{}", bar.name);
        }
    }

    #[test]
    fn a_named_bar_is_measured_alone_and_slow_ones_only_when_named() {
        let names = |only: &[&str]| chosen(only).unwrap().iter().map(|bar| bar.name).collect::<Vec<_>>();
        assert_eq!(names(&["cold-build"]), ["cold-build"]);
        assert!(!names(&[]).contains(&"cold-build"));
        assert_eq!(names(&[]).len(), BARS.iter().filter(|bar| bar.by_default).count());
        let Err(error) = chosen(&["nothing"]) else { panic!("an unknown bar was accepted") };
        assert!(error.to_string().contains("crates, cold-build"), "{error}");
    }

    #[test]
    fn the_table_keeps_its_columns() {
        let rows = [
            (&BARS[0], Measured::Figure { figure: "399 crates".into(), pass: true }),
            (&BARS[1], Measured::Figure { figure: "11.0 min".into(), pass: false }),
            (&BARS[2], Measured::Skipped("no binary".into())),
        ];
        let table = table(&rows);
        let bars = |line: &str| line.match_indices('|').map(|(at, _)| at).collect::<Vec<_>>();
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines.iter().all(|line| bars(line) == bars(lines[0])), "{table}");
        assert!(lines[1].ends_with("| pass") && lines[2].ends_with("| FAIL") && lines[3].ends_with("| skipped"));
    }
}
