//! Classic BPF (linux/bpf_common.h): the little that the sockets' filters are made of.

/// Load a word, load a byte, jump if equal, return.
pub(super) const LOAD: u16 = 0x20;
pub(super) const LOAD_BYTE: u16 = 0x30;
pub(super) const JUMP_IF: u16 = 0x15;
pub(super) const RETURN: u16 = 0x06;
/// SKF_NET_OFF: offsets from here count from the network header.
pub(super) const NETWORK: u32 = 0xfff0_0000;

/// One instruction: code, jump if true, jump if false, operand.
pub(super) const fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

/// Lets nothing in.
pub(super) const DROP_ALL: [libc::sock_filter; 1] = [instruction(RETURN, 0, 0, 0)];
