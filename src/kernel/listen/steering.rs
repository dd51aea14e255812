//! Who gets new connections: classic BPF programs (linux/filter.h) on listeners and on their SO_REUSEPORT group. They need
//! no privilege (socket(7), Linux 4.6).
//!
//! A group's program names a listener by its index in the group, which the kernel tells nobody: a listener is added to the
//! end, and when one leaves, the last one takes its place (`reuseport_add_sock` and `reuseport_detach_sock` in
//! net/core/sock_reuseport.c), so it follows from everything that others have done since. [`Probe`] finds ours out:
//!
//! - It begins handshakes that carry a number in their maximum segment size, which a program on the group turns into an
//!   index. Connections of others, whose maximum segment size is none of these, are not concerned.
//! - Ours drop what carries such a number, which the kernel counts (SO_MEMINFO). So the listener that has dropped one more is
//!   the one with this index.
//! - A probe that begins with another's listener is answered, and then taken back before its handshake ends: it is never
//!   accepted there, and leaves nothing behind. (TCP_DEFER_ACCEPT on a socket that connects delays the handshake's last
//!   packet, see `tcp_rcv_synsent_state_process` in net/ipv4/tcp_input.c; disconnecting sends a reset instead.)

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, SockFilter, SockRef, Socket, Type};

/// The maximum segment size that stands for index 0. On the loopback interface, which probes take, it is 65,495 otherwise,
/// and nowhere else as large as this.
const FIRST_NUMBER: u32 = 20_000;

/// Listeners of a group that can be told apart. Larger: other connections may carry such a number. Smaller: with more
/// listeners than this, nothing is steered.
const NUMBERS: u32 = 4_096;

/// How long all probes may take together. In tests, which run beside others on few CPUs, as long as a busy machine needs.
const PROBING_MAX: Duration = if cfg!(test) { Duration::from_secs(5) } else { Duration::from_millis(30) };

/// How long one may take. On loopback it has arrived before connect(2) returns, usually.
const ARRIVAL_MAX: Duration = Duration::from_millis(5);

/// What finds the indices of listeners.
#[derive(Debug)]
pub(super) struct Probe {
    socket: Socket,
    target: SocketAddr,
}

impl Probe {
    /// For listeners on `address`. It needs no further descriptor.
    ///
    /// # Errors
    /// There are no descriptors.
    pub fn new(address: SocketAddr) -> io::Result<Probe> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        set_option(&socket, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, &1)?;
        let mut target = address;
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => target.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => target.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        Ok(Probe { socket, target })
    }

    /// The indices of `ours` in their group, which has `total` listeners. None if they can't be found out.
    ///
    /// Leaves programs on the group and on ours, which let everything pass but probes.
    ///
    /// # Errors
    /// The system refuses the programs or the probes.
    pub fn indices(&self, ours: &[OwnedFd], total: usize) -> io::Result<Option<Vec<usize>>> {
        if u32::try_from(total).is_ok_and(|total| total > NUMBERS) {
            return Ok(None);
        }
        for listener in ours {
            SockRef::from(listener).attach_filter(&DROP_PROBES)?;
        }
        attach_to_group(&ours[0], &by_number(self.target.is_ipv4()))?;
        let deadline = Instant::now() + PROBING_MAX;
        loop {
            let indices = self.pass(ours, total, deadline)?;
            if indices.is_some() || Instant::now() > deadline {
                return Ok(indices);
            }
        }
    }

    /// Probes every index once. None unless each of ours is found once.
    fn pass(&self, ours: &[OwnedFd], total: usize, deadline: Instant) -> io::Result<Option<Vec<usize>>> {
        let mut indices = vec![None; ours.len()];
        let mut before = drops(ours)?;
        for number in 0..total {
            let answered = self.send(number, || Ok(drops(ours)? != before))?;
            let after = drops(ours)?;
            let mut dropped = (0..ours.len()).filter(|index| after[*index] != before[*index]);
            match (answered, dropped.next(), dropped.next()) {
                (true, None, None) => {}
                // Seen twice, it is uncertain: a listener may also drop what is no probe.
                (false, Some(index), None) if indices[index].is_none() => indices[index] = Some(number),
                _ => return Ok(None),
            }
            if Instant::now() > deadline {
                return Ok(None);
            }
            before = after;
        }
        Ok(indices.into_iter().collect())
    }

    /// Begins a handshake, waits until it is answered or `has_dropped` says that it will not be, and takes it back. True if
    /// it was answered.
    fn send(&self, number: usize, has_dropped: impl Fn() -> io::Result<bool>) -> io::Result<bool> {
        self.socket.set_tcp_mss(FIRST_NUMBER + u32::try_from(number).expect("below the total, which is bounded"))?;
        match self.socket.connect(&SockAddr::from(self.target)) {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            outcome => outcome?,
        }
        let sent_at = Instant::now();
        let is_answered = || self.socket.peer_addr().is_ok();
        let mut answered = is_answered();
        while !answered && !has_dropped()? && sent_at.elapsed() < ARRIVAL_MAX {
            std::thread::yield_now();
            answered = is_answered();
        }
        self.disconnect().map(|()| answered)
    }

    /// So that the socket can make the next attempt.
    fn disconnect(&self) -> io::Result<()> {
        let none = libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
        let bytes = size_of::<libc::sockaddr>() as libc::socklen_t;
        // SAFETY: connect(2) reads `bytes` bytes from a sockaddr, which is that long.
        let outcome = unsafe { libc::connect(self.socket.as_raw_fd(), &raw const none, bytes) };
        if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// New connections to a listener's group begin with one of the others, at random: `ours`, in ascending order, are the
/// indices of ours, and there are `total`, more than ours.
///
/// # Errors
/// The system refuses the program.
pub(super) fn steer_past(listener: &OwnedFd, ours: &[usize], total: usize) -> io::Result<()> {
    attach_to_group(listener, &one_of_the_others(ours, total))
}

/// Takes the program off a listener's group (Linux 5.3). That there is none is no error.
///
/// # Errors
/// The kernel is too old.
pub(super) fn stop_steering(listener: &OwnedFd) -> io::Result<()> {
    match set_option(listener, libc::SOL_SOCKET, libc::SO_DETACH_REUSEPORT_BPF, &0) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        outcome => outcome,
    }
}

/// What would begin a handshake with this listener is dropped from now on, and comes again after a second. Connections
/// that are accepted meanwhile inherit the filter, which lets everything through that an open connection gets.
///
/// # Errors
/// The system refuses the program.
pub(super) fn drop_handshakes(listener: &OwnedFd) -> io::Result<()> {
    SockRef::from(listener).attach_filter(&DROP_SYN)
}

// ---- The programs.

const PASS: u32 = u32::MAX;
const DROP: u32 = 0;
/// An index that no listener has: the kernel goes by the hash of the addresses, as without a program.
const NO_INDEX: u32 = u32::MAX;

const TCP_FLAGS_OFFSET: u32 = 13;
const SYN: u32 = 0x02;
const ACK: u32 = 0x10;
/// The first option of every handshake that Linux begins, its kind and length: the maximum segment size follows.
const TCP_OPTIONS_OFFSET: u32 = 20;
const SEGMENT_SIZE_OPTION: u32 = 0x0204;

const fn instruction(code: u32, operand: u32) -> SockFilter {
    SockFilter::new(code as u16, 0, 0, operand)
}

/// Skips `skipped` instructions unless the comparison holds.
const fn unless(comparison: u32, operand: u32, skipped: u8) -> SockFilter {
    SockFilter::new((libc::BPF_JMP | comparison | libc::BPF_K) as u16, 0, skipped, operand)
}

const fn load_byte(offset: u32) -> SockFilter {
    instruction(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, offset)
}

const fn load_half(offset: u32) -> SockFilter {
    instruction(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, offset)
}

const fn answer(value: u32) -> SockFilter {
    instruction(libc::BPF_RET | libc::BPF_K, value)
}

/// Lets everything through but a SYN without an ACK. A socket's filter sees the TCP header first.
static DROP_SYN: [SockFilter; 5] = [
    load_byte(TCP_FLAGS_OFFSET),
    instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, SYN | ACK),
    unless(libc::BPF_JEQ, SYN, 1),
    answer(DROP),
    answer(PASS),
];

/// Lets everything through but probes. A load beyond the packet's end would drop it, so the header's length is looked at.
static DROP_PROBES: [SockFilter; 12] = {
    const LENGTH_OFFSET: u32 = 12;
    const WITH_OPTIONS: u32 = 6 << 4;
    [
        load_byte(TCP_FLAGS_OFFSET),
        instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, SYN | ACK),
        unless(libc::BPF_JEQ, SYN, 8),
        load_byte(LENGTH_OFFSET),
        unless(libc::BPF_JGE, WITH_OPTIONS, 6),
        load_half(TCP_OPTIONS_OFFSET),
        unless(libc::BPF_JEQ, SEGMENT_SIZE_OPTION, 4),
        load_half(TCP_OPTIONS_OFFSET + 2),
        instruction(libc::BPF_ALU | libc::BPF_SUB | libc::BPF_K, FIRST_NUMBER),
        SockFilter::new((libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16, 1, 0, NUMBERS),
        answer(DROP),
        answer(PASS),
    ]
};

/// The listener whose index a probe carries. A group's program sees what follows the TCP header first, and earlier bytes
/// from the network header on.
fn by_number(is_ipv4: bool) -> [SockFilter; 9] {
    let network = libc::SKF_NET_OFF.cast_unsigned();
    let (version, header_bytes) = if is_ipv4 { (4 << 4, 20) } else { (6 << 4, 40) };
    let options = network + header_bytes + TCP_OPTIONS_OFFSET;
    [
        load_byte(network),
        instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0xf0),
        unless(libc::BPF_JEQ, version, 5),
        load_half(options),
        unless(libc::BPF_JEQ, SEGMENT_SIZE_OPTION, 3),
        load_half(options + 2),
        // Below the first number, it becomes larger than any index.
        instruction(libc::BPF_ALU | libc::BPF_SUB | libc::BPF_K, FIRST_NUMBER),
        instruction(libc::BPF_RET | libc::BPF_A, 0),
        answer(NO_INDEX),
    ]
}

/// A random one of the indices below `total` that are not among `ours`.
fn one_of_the_others(ours: &[usize], total: usize) -> Vec<SockFilter> {
    let number = |count| u32::try_from(count).expect("indices are bounded by the probes");
    let random = (libc::SKF_AD_OFF + libc::SKF_AD_RANDOM).cast_unsigned();
    let mut program = vec![
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, random),
        instruction(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, number(total - ours.len())),
    ];
    for index in ours {
        program.push(unless(libc::BPF_JGE, number(*index), 1));
        program.push(instruction(libc::BPF_ALU | libc::BPF_ADD | libc::BPF_K, 1));
    }
    program.push(instruction(libc::BPF_RET | libc::BPF_A, 0));
    program
}

fn attach_to_group(listener: &OwnedFd, program: &[SockFilter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).expect("a short program"),
        // A SockFilter is a sock_filter, transparently.
        filter: program.as_ptr().cast_mut().cast(),
    };
    set_option(listener, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, &program)
}

fn set_option<T>(socket: &impl AsRawFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    let bytes = libc::socklen_t::try_from(size_of::<T>()).expect("options are small");
    // SAFETY: setsockopt(2) reads `bytes` bytes from `value`, which is that long, and, for a sock_fprog, the instructions
    // that it points to: it is built above from a slice that outlives the call. The kernel keeps neither pointer.
    let outcome = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const *value).cast(), bytes) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// How many packets each listener has dropped (SK_MEMINFO_DROPS, linux/sock_diag.h).
fn drops(listeners: &[OwnedFd]) -> io::Result<Vec<u32>> {
    const SK_MEMINFO_VARS: usize = 9;
    const SK_MEMINFO_DROPS: usize = 8;
    let drops = |listener: &OwnedFd| {
        let mut values = [0_u32; SK_MEMINFO_VARS];
        let mut bytes = size_of_val(&values) as libc::socklen_t;
        let (option, into) = (libc::SO_MEMINFO, (&raw mut values).cast());
        // SAFETY: getsockopt(2) writes at most `bytes` bytes to `values`, which is that long.
        let outcome = unsafe { libc::getsockopt(listener.as_raw_fd(), libc::SOL_SOCKET, option, into, &raw mut bytes) };
        if outcome == 0 { Ok(values[SK_MEMINFO_DROPS]) } else { Err(io::Error::last_os_error()) }
    };
    listeners.iter().map(drops).collect()
}
