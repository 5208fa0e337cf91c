//! The copy of a thread's registers and stack, taken while it is stopped. Everything else happens afterwards.

use framehop::UnwindRegsNative;

use crate::proc::Mapping;

/// Limit of the copied part of a stack, in bytes.
pub(crate) const STACK_MAX: usize = 512 * 1024;

/// A thread at one moment.
#[derive(Debug)]
pub(crate) struct ThreadCopy {
    pub(crate) registers: Registers,
    /// From the stack pointer upwards.
    pub(crate) stack: Vec<u8>,
}

/// The registers needed to unwind a stack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registers {
    pub(crate) pc: u64,
    pub(crate) sp: u64,
    pub(crate) native: UnwindRegsNative,
    /// Those that a function must leave as they are, and keeps its variables in.
    pub(crate) kept: [u64; KEPT_REGISTERS],
}

/// How many registers a function must leave as they are.
#[cfg(target_arch = "x86_64")]
const KEPT_REGISTERS: usize = 6;
#[cfg(target_arch = "aarch64")]
const KEPT_REGISTERS: usize = 11;

/// The number of bytes to copy from `sp` upwards: to the end of its mapping, at most [`STACK_MAX`]. [`STACK_MAX`] if the
/// stack was mapped after `maps` was read.
pub(crate) fn copy_len(maps: &[Mapping], sp: u64) -> usize {
    let above = maps.partition_point(|mapping| mapping.range.end <= sp);
    let rest =
        maps.get(above).filter(|mapping| mapping.range.start <= sp).map(|mapping| mapping.range.end - sp);
    rest.and_then(|rest| usize::try_from(rest).ok()).unwrap_or(STACK_MAX).min(STACK_MAX)
}

#[cfg(target_arch = "x86_64")]
impl From<&libc::user_regs_struct> for Registers {
    fn from(regs: &libc::user_regs_struct) -> Self {
        use framehop::x86_64::Reg;
        let mut native = UnwindRegsNative::new(regs.rip, regs.rsp, regs.rbp);
        // Frames that realign their stack are unwound with one of these.
        for (reg, value) in [
            (Reg::RBX, regs.rbx),
            (Reg::R10, regs.r10),
            (Reg::R12, regs.r12),
            (Reg::R13, regs.r13),
            (Reg::R14, regs.r14),
            (Reg::R15, regs.r15),
        ] {
            native.set(reg, value);
        }
        let kept = [regs.rbx, regs.rbp, regs.r12, regs.r13, regs.r14, regs.r15];
        Self { pc: regs.rip, sp: regs.rsp, native, kept }
    }
}

#[cfg(target_arch = "x86_64")]
impl From<&libc::mcontext_t> for Registers {
    fn from(context: &libc::mcontext_t) -> Self {
        use framehop::x86_64::Reg;
        let of = |index: i32| {
            usize::try_from(index)
                .ok()
                .and_then(|index| context.gregs.get(index))
                .map_or(0, |value| value.cast_unsigned())
        };
        let mut native = UnwindRegsNative::new(of(libc::REG_RIP), of(libc::REG_RSP), of(libc::REG_RBP));
        for (reg, index) in [
            (Reg::RBX, libc::REG_RBX),
            (Reg::R10, libc::REG_R10),
            (Reg::R12, libc::REG_R12),
            (Reg::R13, libc::REG_R13),
            (Reg::R14, libc::REG_R14),
            (Reg::R15, libc::REG_R15),
        ] {
            native.set(reg, of(index));
        }
        let kept = [libc::REG_RBX, libc::REG_RBP, libc::REG_R12, libc::REG_R13, libc::REG_R14, libc::REG_R15];
        Self { pc: of(libc::REG_RIP), sp: of(libc::REG_RSP), native, kept: kept.map(of) }
    }
}

#[cfg(target_arch = "aarch64")]
fn aarch64(pc: u64, sp: u64, regs: &[u64; 31]) -> Registers {
    // Return addresses may be signed in the bits above user space.
    let mask = framehop::aarch64::PtrAuthMask((1 << 48) - 1);
    let native = UnwindRegsNative::new_with_ptr_auth_mask(mask, regs[30], sp, regs[29]);
    let mut kept = [0; KEPT_REGISTERS];
    kept.copy_from_slice(&regs[19..30]);
    Registers { pc, sp, native, kept }
}

#[cfg(target_arch = "aarch64")]
impl From<&libc::user_regs_struct> for Registers {
    fn from(regs: &libc::user_regs_struct) -> Self {
        aarch64(regs.pc, regs.sp, &regs.regs)
    }
}

#[cfg(target_arch = "aarch64")]
impl From<&libc::mcontext_t> for Registers {
    fn from(context: &libc::mcontext_t) -> Self {
        aarch64(context.pc, context.sp, &context.regs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(range: std::ops::Range<u64>) -> Mapping {
        Mapping { range, offset: 0, executable: false, name: None }
    }

    #[test]
    fn a_stack_is_copied_to_the_end_of_its_mapping() {
        let maps = [mapped(0x1000..0x2000), mapped(0x3000..0x5000), mapped(0x5000..0x40_0000)];
        assert_eq!(copy_len(&maps, 0x4ff8), 8);
        assert_eq!(copy_len(&maps, 0x5000), 0x8_0000);
        assert_eq!(copy_len(&maps, 0x2800), STACK_MAX); // in no mapping
        assert_eq!(copy_len(&[], 8), STACK_MAX);
    }
}
