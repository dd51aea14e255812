//! What a process needs once, mostly at its start: CPUs, limits, memory, the system calls that it gives up; words for what
//! the system refused, and what the process has used.

mod accounting;
mod affinity;
mod descriptors;
mod idle;
mod memory;
mod refusal;
mod regular_file;
mod sandbox;
mod service_manager;
mod stderr;
#[cfg(feature = "onnxruntime")]
mod telemetry;

pub use accounting::{process_started_unix_seconds, process_usage, unix_seconds};
pub use affinity::{available_cpus, pin_current_thread};
pub use descriptors::{DescriptorLimit, raise_descriptor_limit};
pub use idle::run_when_idle;
pub use memory::{SpeakingAllocator, check_address_space, release_free_memory, spare_address_space};
pub use refusal::{explain_refusal, explain_thread_refusal};
pub use regular_file::{ReadFileError, read_regular_file};
pub use sandbox::give_up_system_calls;
pub(super) use sandbox::restrict;
pub use service_manager::send_to_service_manager;
pub use stderr::{outlive_file_size_limit, write_to_stderr};
#[cfg(feature = "onnxruntime")]
pub use telemetry::refuse_telemetry;
