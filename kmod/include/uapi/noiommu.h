/* SPDX-License-Identifier: GPL-2.0-or-later WITH Linux-syscall-note */
/*
 * /dev/noiommu: pin memory and learn its bus addresses.
 *
 * Copyright (c) 2026, baremetal.noiommu contributors
 *
 * For a driver in userspace whose device has no IOMMU in front of it. One call
 * pins a whole buffer and returns where it is, as a device sees it. Unlike what
 * /proc/self/pagemap says, that stays true: pinned memory is not moved, swapped
 * or freed before it is unmapped here.
 *
 * A mapping grants a device nothing. Without an IOMMU it reaches all memory
 * anyway; here a user only learns which of it is safe to use.
 *
 * Opening the file takes CAP_SYS_RAWIO in the initial user namespace, besides
 * permission on the file, and so does NOIOMMU_MAP.
 *
 * Every structure starts with @size, which the caller sets to the size it was
 * compiled with. Later versions of this interface may append fields. A kernel
 * takes a longer structure than it knows as long as the rest of it is zero, and
 * a shorter one, down to that of version 1, as if the rest was zero. @flags and
 * reserved fields must be zero. Layouts are the same for 32 and 64 bits.
 *
 * All lengths and addresses are in bytes.
 *
 * Errors of every call: EINVAL if @size is less than that of version 1, or if
 * @flags or a reserved field is not zero; E2BIG if @size is more than what is
 * known here and the rest is not zero, or more than a page; EFAULT if the
 * structure cannot be read or written; ENOTTY if the call is not known; EINTR if
 * a signal came while it waited for another call on the same file. A call that
 * fails has changed nothing but what its description names, and with EFAULT
 * maybe a part of what it was to write.
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
 * @out_page_size: what @user_va and @length of a mapping are multiples of
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
 *	0xffffffff for one with 32 address bits; 0 if it knows no limit. The
 *	kernel adds the limits it knows of, which are those of the platform: how
 *	many address bits a device has, only its driver knows, and that is the
 *	caller
 * @extents: pointer to an array of struct noiommu_extent, to be filled in
 * @num_extents: in: how many entries the array has. Out: how many the buffer
 *	takes, on success and with EMSGSIZE; as many as it has pages at most
 * @__reserved2: must be 0
 *
 * Pin all of the buffer and return its extents in the order of the buffer; their
 * lengths add up to @length. Extents that follow each other are not contiguous.
 *
 * The buffer may be anonymous memory with pages of any size (transparent huge
 * pages too), hugetlb pages of any size, and shared memory (memfd, tmpfs, System
 * V), mapped for writing. What is not there yet is allocated. A private mapping
 * of a file gets private copies, as from any write.
 *
 * The mapping is known by the caller's address space and @user_va, and stays
 * until NOIOMMU_UNMAP, or the last close of the open file, which comes at the
 * latest when all processes that have it are gone. Neither munmap(), nor exec(),
 * nor removal of the device ends it: a device may be writing there still. A child
 * does not inherit its parent's mappings, and of private memory it gets copies,
 * which are elsewhere.
 *
 * A process that is killed has its files closed in any order. So after the last
 * close the memory stays pinned until VFIO has given back each device that was in
 * use then, if a mapping of the file is for it, or is in the address space that it
 * was attached from (fork() and exec() make another one). For more devices than
 * these, map the buffer by another open file as well.
 * While a device stays in use, NOIOMMU_UNMAP gives back what it no longer needs.
 *
 * All of the buffer counts against RLIMIT_MEMLOCK of the caller, as with VFIO:
 * each mapping counts, as long as the address space exists, and CAP_IPC_LOCK lifts
 * the limit.
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
 * @num_extents: in: how many entries the array has. Out: how many the range
 *	takes, on success and with EMSGSIZE
 * @__reserved: must be 0
 *
 * Return the extents of a range that lies within one mapping of the caller's
 * address space. They are those that NOIOMMU_MAP returned, cut to the range, even
 * if something else is mapped at @user_va by now.
 *
 * Errors: EINVAL length 0; EOVERFLOW the range wraps; ENOENT not within one
 * mapping; EMSGSIZE the array is too small, @num_extents says what is needed and
 * the array is as it was; EFAULT the array cannot be written.
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
 * @length: in: its size, not 0. Out: how much was unmapped
 *
 * Undo all mappings of the caller's address space within a range; 0 and ~0 cover
 * all of them. No device may use the memory any more: it goes back to the system.
 *
 * Errors: EINVAL length 0; EOVERFLOW the range wraps; ENOENT no mapping is in the
 * range, or one is only in part, and then none is undone.
 */
struct noiommu_unmap {
	__u32 size;
	__u32 flags;
	__aligned_u64 user_va;
	__aligned_u64 length;
};

#define NOIOMMU_UNMAP	_IO(NOIOMMU_TYPE, 0x03)

#endif /* _UAPI_NOIOMMU_H */
