//! Lists of CPUs: whatever the text, a list within its bounds or an error that names what is wrong; and a list that is
//! written out number by number reads as the same list.
#![no_main]

use disrust::config::cpu_list::{CPUS_NAMED_MAX, parse_cpu_list};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match parse_cpu_list(text) {
        Ok(cpus) => {
            assert!(!cpus.is_empty() && cpus.len() <= CPUS_NAMED_MAX);
            let written: Vec<String> = cpus.iter().map(usize::to_string).collect();
            assert_eq!(parse_cpu_list(&written.join(",")).as_ref(), Ok(&cpus));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
