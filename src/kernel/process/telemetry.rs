//! What a library that is loaded later is not to tell others.

/// Has onnxruntime collect nothing. Without this, Microsoft's builds (1.32) start a thread and keep a database in the
/// home directory as soon as they are set up; their interface switches telemetry off only after that.
///
/// Call it before anything starts a thread: beside another thread, or if that can't be told, it does nothing.
pub fn refuse_telemetry() {
    let threads = std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    if threads == 1 {
        // SAFETY: no other thread reads or writes the environment meanwhile: this one is the only one, as just counted.
        unsafe { std::env::set_var("ORT_DISABLE_TELEMETRY", "1") };
    }
}
