//! Classic BPF (linux/bpf_common.h, linux/filter.h): the little that the sockets' filters are
//! made of.

/// Load a word, load a byte, load a byte behind the header, that header's length, mask, jumps,
/// return.
pub(super) const LOAD: u16 = 0x20;
pub(super) const LOAD_BYTE: u16 = 0x30;
pub(super) const LOAD_BYTE_BEHIND: u16 = 0x50;
pub(super) const LOAD_HEADER_LENGTH: u16 = 0xb1;
pub(super) const AND: u16 = 0x54;
pub(super) const JUMP: u16 = 0x05;
pub(super) const JUMP_IF: u16 = 0x15;
pub(super) const JUMP_IF_GREATER: u16 = 0x25;
pub(super) const JUMP_IF_NOT_LESS: u16 = 0x35;
pub(super) const RETURN: u16 = 0x06;
/// SKF_NET_OFF: offsets from here count from the network header.
pub(super) const NETWORK: u32 = 0xfff0_0000;
/// SKF_AD_OFF, and what the kernel knows of a packet beside its bytes: SKF_AD_PROTOCOL,
/// SKF_AD_PKTTYPE, SKF_AD_IFINDEX, SKF_AD_VLAN_TAG, SKF_AD_VLAN_TAG_PRESENT.
const BESIDE: u32 = 0xffff_f000;
pub(super) const ETHERTYPE: u32 = BESIDE;
pub(super) const PACKET_TYPE: u32 = BESIDE + 4;
pub(super) const INTERFACE: u32 = BESIDE + 8;
pub(super) const VLAN_TAG: u32 = BESIDE + 44;
pub(super) const VLAN_TAG_PRESENT: u32 = BESIDE + 48;

/// One instruction: code, jump if true, jump if false, operand.
pub(super) const fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

/// Lets nothing in.
pub(super) const DROP_ALL: [libc::sock_filter; 1] = [instruction(RETURN, 0, 0, 0)];

/// What a filter may have: BPF_MAXINSNS.
const INSTRUCTIONS_MAX: usize = 4096;
/// Ranges that [`any_of`] asks for at most; with three instructions each they leave room for more.
const RANGES_MAX: usize = INSTRUCTIONS_MAX / 4;

/// Appends: if what was loaded is one of `words`, return `length`. Words that follow one another
/// cost as much as one; of very many, those between near ones are let in as well, and whoever
/// reads must look again.
pub(super) fn any_of(
    filter: &mut Vec<libc::sock_filter>,
    words: impl IntoIterator<Item = u32>,
    length: u32,
) {
    for (first, last) in ranges(words, RANGES_MAX) {
        if first == last {
            filter.push(instruction(JUMP_IF, 0, 1, first));
        } else {
            filter.push(instruction(JUMP_IF_NOT_LESS, 0, 2, first));
            filter.push(instruction(JUMP_IF_GREATER, 1, 0, last));
        }
        filter.push(instruction(RETURN, 0, 0, length));
    }
}

/// The words as at most `most` ranges, the smallest gaps closed first.
fn ranges(words: impl IntoIterator<Item = u32>, most: usize) -> Vec<(u32, u32)> {
    let mut words: Vec<u32> = words.into_iter().collect();
    words.sort_unstable();
    words.dedup();
    let mut gaps: Vec<u32> =
        words.windows(2).map(|pair| pair[1] - pair[0]).filter(|gap| *gap > 1).collect();
    gaps.sort_unstable_by_key(|gap| std::cmp::Reverse(*gap));
    // A gap that is no larger than this one is closed.
    let closed = gaps.get(most.saturating_sub(1)).copied().unwrap_or(1);
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for word in words {
        match ranges.last_mut() {
            Some((_, last)) if word - *last <= closed => *last = word,
            Some(_) | None => ranges.push((word, word)),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_follow_one_another_are_one_range() {
        assert_eq!(ranges([], 9), []);
        assert_eq!(
            ranges([7, 5, 6, 5, 9, u32::MAX, 0], 9),
            [(0, 0), (5, 7), (9, 9), (u32::MAX, u32::MAX)]
        );
    }

    #[test]
    fn too_many_ranges_become_fewer_and_leave_out_no_word() {
        let words: Vec<u32> = (0..5_000).map(|n| n * 3 + u32::from(n > 2_000) * 1_000).collect();
        let few = ranges(words.iter().copied(), 10);
        assert!((1..=10).contains(&few.len()), "{few:?}");
        assert!(words.iter().all(|word| few.iter().any(|(a, b)| (a..=b).contains(&word))));
        // The widest gap is the last to be closed.
        assert_eq!(few, [(0, 6_000), (7_003, 15_997)]);
        let mut filter = Vec::new();
        any_of(&mut filter, (0..100_000).map(|n| n * 2), 1);
        assert!(filter.len() < INSTRUCTIONS_MAX);
    }
}
