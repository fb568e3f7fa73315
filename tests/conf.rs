//! Every sample configuration is right, and says what it does.

#![cfg(feature = "daemon")]

use std::path::{Path, PathBuf};
use std::process::Command;

fn samples() -> Vec<PathBuf> {
    let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    let mut files: Vec<PathBuf> = std::fs::read_dir(conf.join("examples"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.push(conf.join("havip.toml"));
    files
}

#[test]
fn every_sample_passes_the_check() {
    let samples = samples();
    assert!(samples.len() > 5, "{samples:?}");
    for file in samples {
        let output = Command::new(env!("CARGO_BIN_EXE_havip")).arg("check").arg(&file).output();
        let output = output.unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{}: {text}{errors}", file.display());
    }
}

#[test]
fn the_samples_name_every_key_there_is() {
    let text: String =
        samples().iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    for key in havip::config::key::ROUTER_KEYS {
        // A check program is not acted on yet, so no sample suggests one.
        if !key.name.starts_with("check") || key.name == "checksum" {
            assert!(text.contains(&format!("\n{} = ", key.name)), "{} is in no sample", key.name);
        }
    }
}
