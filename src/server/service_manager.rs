//! What the service manager that started the process is told, if there is one that wants to know: systemd with `Type=notify` or
//! `Type=notify-reload`, or whoever else has set `NOTIFY_SOCKET` (sd_notify(3)).
//!
//! It is a courtesy: nothing waits for it, and what fails is one line in the log. There is no watchdog in it. The server's own
//! ([`super::watchdog`]) does not count the time in which the process was frozen, and the manager's would.
#![forbid(unsafe_code)]

use std::sync::OnceLock;

use sd_notify::NotifyState;

use crate::kernel::send_to_service_manager;

/// Set once the server serves: before that, a model that is read again is no news.
static SERVES: OnceLock<()> = OnceLock::new();

/// The server serves, in these words.
pub fn serves(words: &str) {
    SERVES.get_or_init(|| ());
    tell(&[NotifyState::Ready, NotifyState::Status(&in_one_line(words))]);
}

/// The model file is being read again.
pub fn reloads() {
    if SERVES.get().is_some() {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now, NotifyState::Status("reading the model file again")]),
            Err(error) => tracing::warn!("the clock cannot be read, so the service manager is not told: {error}"),
        }
    }
}

/// That is over, with this outcome.
pub fn has_reloaded(words: &str) {
    if SERVES.get().is_some() {
        serves(words);
    }
}

/// The server has been told to stop.
pub fn stops() {
    tell(&[NotifyState::Stopping, NotifyState::Status("leaving, then draining")]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = send_to_service_manager(&message_of(states)) {
        tracing::warn!(
            "the service manager could not be told {}: {error}. The likely cause is a NOTIFY_SOCKET that \
             nobody listens at or reads",
            states[0]
        );
    }
}

fn message_of(states: &[NotifyState<'_>]) -> String {
    states.iter().map(|state| format!("{state}\n")).collect()
}

/// Words that may quote a file, as one line of bounded length: another line would be an order to the manager.
fn in_one_line(words: &str) -> String {
    /// Larger: a status that nobody reads. Smaller: reasons are cut off.
    const LETTERS_MAX: usize = 300;
    words.chars().take(LETTERS_MAX).map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_cannot_be_an_order() {
        let words = in_one_line("the model x\nMAINPID=1\r\u{85}\0 is not taken");
        let message = message_of(&[NotifyState::Ready, NotifyState::Status(&words)]);
        assert_eq!(message, "READY=1\nSTATUS=the model x MAINPID=1    is not taken\n");
        assert_eq!(in_one_line(&"ä".repeat(10_000)).chars().count(), 300);
    }

    /// systemd takes the two together or ends the service.
    #[test]
    fn a_reload_tells_the_time_that_it_begins_at() {
        let now = NotifyState::monotonic_usec_now().expect("there is a clock");
        let message = message_of(&[NotifyState::Reloading, now]);
        let number =
            message.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").and_then(|rest| rest.trim_end().parse::<u64>().ok());
        assert!(number.is_some_and(|number| number > 0), "{message}");
    }
}
