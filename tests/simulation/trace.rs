//! What happened, in lines that a person can read; only when one run is replayed.

use std::cell::Cell;

thread_local! {
    static PRINTING: Cell<bool> = const { Cell::new(false) };
    static NOW_NS: Cell<u64> = const { Cell::new(0) };
}

/// Whether this thread's runs say what they do.
pub fn print(printing: bool) {
    PRINTING.set(printing);
}

/// The time that the next lines begin with.
pub fn set_clock(now_ns: u64) {
    NOW_NS.set(now_ns);
}

/// Says something, if anyone listens.
pub fn note(line: impl FnOnce() -> String) {
    if PRINTING.get() {
        eprintln!("{:>12.6} ms  {}", NOW_NS.get() as f64 / 1e6, line());
    }
}
