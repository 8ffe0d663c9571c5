/* SPDX-License-Identifier: GPL-2.0-or-later WITH Linux-syscall-note */
/*
 * /dev/noiommu: pin memory and learn its bus addresses.
 *
 * Copyright (c) 2026, baremetal.noiommu contributors
 *
 * For drivers in userspace whose devices have no IOMMU in front of them. One call
 * pins a whole buffer and returns its addresses as a device sees them. Unlike the
 * contents of /proc/self/pagemap, these stay true: pinned memory is not moved,
 * swapped or freed before it is unmapped here.
 *
 * A mapping grants a device nothing. Without an IOMMU the device reaches all memory
 * anyway; the caller only learns which of it is safe to use.
 *
 * Opening the file takes CAP_SYS_RAWIO in the initial user namespace in addition to
 * permission on the file, and so does NOIOMMU_MAP.
 *
 * Every structure starts with @size, which the caller sets to the size that it was
 * compiled with. Later versions of this interface may append fields. The kernel
 * accepts a longer structure than it knows if the rest of it is zero, and a shorter
 * one, down to that of version 1, as if the rest were zero. @flags and reserved
 * fields must be zero. Layouts are the same for 32 and 64 bits.
 *
 * All lengths and addresses are in bytes.
 *
 * Errors of every call: EINVAL if @size is less than that of version 1, or if
 * @flags or a reserved field is not zero; E2BIG if @size is more than the kernel
 * knows and the rest is not zero, or more than a page; EFAULT if the structure
 * cannot be read or written; ENOTTY if the call is unknown; EINTR if a signal came
 * while the call waited for another one on the same file. A call that fails changes
 * nothing but what its description names, and with EFAULT perhaps a part of its
 * output.
 */
#ifndef _UAPI_NOIOMMU_H
#define _UAPI_NOIOMMU_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define NOIOMMU_TYPE	0xE9

/* What NOIOMMU_INFO returns; counts up when calls, flags or fields are added */
#define NOIOMMU_VERSION	1

/**
 * struct noiommu_info - ioctl(NOIOMMU_INFO)
 * @size: sizeof(struct noiommu_info)
 * @flags: must be 0
 * @out_version: the version of this interface that the kernel has
 * @out_page_size: @user_va and @length of a mapping must be multiples of this
 */
struct noiommu_info {
	__u32 size;
	__u32 flags;
	__u32 out_version;
	__u32 out_page_size;
};

#define NOIOMMU_INFO	_IO(NOIOMMU_TYPE, 0x00)

/**
 * struct noiommu_extent - memory that is contiguous for the device
 * @addr: bus address of its first byte
 * @length: number of bytes, not 0
 */
struct noiommu_extent {
	__aligned_u64 addr;
	__aligned_u64 length;
};

/**
 * struct noiommu_map - ioctl(NOIOMMU_MAP)
 * @size: sizeof(struct noiommu_map)
 * @flags: must be 0
 * @segment: PCI segment (domain) of the device
 * @bus: its bus
 * @device: its device number, 0 to 31
 * @function: its function number, 0 to 7
 * @__reserved: must be 0
 * @user_va: where the buffer starts in the caller's memory; page aligned
 * @length: its size; a multiple of the page size, not 0
 * @last_addr: the last bus address that the device can generate, such as
 *	0xffffffff for one with 32 address bits; 0 if it has no limit. The kernel
 *	applies the limits of the platform as well. It does not know those of the
 *	device: only the device's driver does, which is the caller
 * @extents: pointer to an array of struct noiommu_extent, to be filled in
 * @num_extents: in: number of entries of the array. Out, on success and with
 *	EMSGSIZE: number of extents of the buffer; it has at most one for each
 *	page
 * @__reserved2: must be 0
 *
 * Pin all of the buffer and return its extents in the order of the buffer; their
 * lengths add up to @length. Extents that follow each other are not contiguous.
 *
 * The buffer may be anonymous memory with pages of any size (including transparent
 * huge pages), hugetlb pages of any size, and shared memory (memfd, tmpfs, System
 * V). It must be mapped for writing. Pages that do not exist yet are allocated. A
 * private mapping of a file gets private copies, as with any write.
 *
 * A mapping is identified by the caller's address space and @user_va. It lasts
 * until NOIOMMU_UNMAP, or until the last close of the open file, which comes at the
 * latest when all processes that have the file open are gone. Neither munmap(), nor
 * exec(), nor removal of the device ends it, since the device may still be writing
 * there. A child does not inherit its parent's mappings, and its private memory is
 * a copy at other addresses.
 *
 * The kernel closes the files of a killed process in arbitrary order. So after the
 * last close the memory stays pinned until VFIO has released every device that was
 * in use at that time and that either is named by a mapping of the file, or was
 * claimed from the address space of one (fork() and exec() make another one). To
 * protect the buffer from other devices as well, map it through another open file,
 * too. While a device stays in use, NOIOMMU_UNMAP frees memory that it no longer
 * needs.
 *
 * The whole buffer counts against RLIMIT_MEMLOCK of the caller, as with VFIO: each
 * mapping counts as long as the address space exists, and CAP_IPC_LOCK lifts the
 * limit.
 *
 * Errors: EPERM no CAP_SYS_RAWIO, or the kernel is locked down; ENODEV the device
 * was not added to the noiommu module; EINVAL not aligned to pages, length 0 or
 * no such device number; EOVERFLOW the buffer wraps around the end of the address
 * space; EEXIST it overlaps a mapping of the same address space; ENOMEM over
 * RLIMIT_MEMLOCK, out of memory, or more memory of closed files stays pinned than
 * the administrator allows (held_max); EFAULT not all of it is mapped for writing,
 * or the array cannot be written; EOPNOTSUPP some of it is a file's memory, a
 * device's, or a driver's; ERANGE some of it is beyond @last_addr, or the
 * device's reach on this platform, so that the kernel's own drivers would bounce
 * it; EMSGSIZE the array is too small, @num_extents says what is needed; EINTR
 * the caller is being killed.
 */
struct noiommu_map {
	__u32 size;
	__u32 flags;
	__u32 segment;
	__u8 bus;
	__u8 device;
	__u8 function;
	__u8 __reserved;
	__aligned_u64 user_va;
	__aligned_u64 length;
	__aligned_u64 last_addr;
	__aligned_u64 extents;
	__u32 num_extents;
	__u32 __reserved2;
};

#define NOIOMMU_MAP	_IO(NOIOMMU_TYPE, 0x01)

/**
 * struct noiommu_query - ioctl(NOIOMMU_QUERY)
 * @size: sizeof(struct noiommu_query)
 * @flags: must be 0
 * @user_va: where the range starts; any byte
 * @length: its size; not 0
 * @extents: pointer to an array of struct noiommu_extent, to be filled in
 * @num_extents: in: number of entries of the array. Out, on success and with
 *	EMSGSIZE: number of extents of the range
 * @__reserved: must be 0
 *
 * Return the extents of a range that lies within one mapping of the caller's
 * address space. They are those that NOIOMMU_MAP returned, cut to the range, even
 * if something else has been mapped at @user_va since.
 *
 * Errors: EINVAL length 0; EOVERFLOW the range wraps; ENOENT not within one
 * mapping; EMSGSIZE the array is too small and was not written, @num_extents says
 * what is needed; EFAULT the array cannot be written.
 */
struct noiommu_query {
	__u32 size;
	__u32 flags;
	__aligned_u64 user_va;
	__aligned_u64 length;
	__aligned_u64 extents;
	__u32 num_extents;
	__u32 __reserved;
};

#define NOIOMMU_QUERY	_IO(NOIOMMU_TYPE, 0x02)

/**
 * struct noiommu_unmap - ioctl(NOIOMMU_UNMAP)
 * @size: sizeof(struct noiommu_unmap)
 * @flags: must be 0
 * @user_va: where the range starts
 * @length: in: its size, not 0. Out: number of bytes that were unmapped
 *
 * Undo all mappings of the caller's address space within a range; a @user_va of 0
 * and a @length of ~0 cover all of them. No device may use the memory any more,
 * since it goes back to the system.
 *
 * Errors: EINVAL length 0; EOVERFLOW the range wraps; ENOENT no mapping is in the
 * range, or one is only partly in it; then none is undone.
 */
struct noiommu_unmap {
	__u32 size;
	__u32 flags;
	__aligned_u64 user_va;
	__aligned_u64 length;
};

#define NOIOMMU_UNMAP	_IO(NOIOMMU_TYPE, 0x03)

#endif /* _UAPI_NOIOMMU_H */
