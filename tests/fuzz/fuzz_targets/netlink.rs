#![no_main]

#[path = "../src/bench.rs"]
mod bench;
#[path = "../src/netlink.rs"]
mod target;

libfuzzer_sys::fuzz_target!(|data: &[u8]| target::run(data));
