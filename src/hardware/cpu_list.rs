//! The kernel's notation for sets of CPUs: `0-3,8,10-11`.

/// No Linux kernel can be configured for more (`CONFIG_NR_CPUS`), so a larger number is damage and not a CPU.
pub(super) const MOST_CPUS: u32 = 8192;

/// The CPUs of a list, ascending and without repetition. Parts that make no sense are left out.
pub(super) fn parse(text: &str) -> Vec<u32> {
    let mut cpus: Vec<u32> = text.trim().split(',').flat_map(range).collect();
    cpus.sort_unstable();
    cpus.dedup();
    cpus
}

fn range(part: &str) -> std::ops::Range<u32> {
    let (first, last) = part.split_once('-').unwrap_or((part, part));
    match (first.trim().parse::<u32>(), last.trim().parse::<u32>()) {
        (Ok(first), Ok(last)) if first <= last && last < MOST_CPUS => first..last + 1,
        _ => 0..0,
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn ranges_and_single_cpus_are_listed_once_and_ascending() {
        assert_eq!(parse("8,0-3,2-4\n"), [0, 1, 2, 3, 4, 8]);
    }

    #[test]
    fn damage_is_left_out() {
        assert_eq!(parse(""), [] as [u32; 0]);
        assert_eq!(parse("3-1,x,-,5-,7,0-4294967295"), [7]);
    }
}
