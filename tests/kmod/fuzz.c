// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Bounded fuzzer of the noiommu module: random and mutated calls by processes
 * with random privileges and limits, whose other threads close, unmap and
 * replace what the calls work on; devices that come and go; allocations and
 * copies that fail. Runs as the first process of a small virtual machine, see
 * tests/kmod/long, and prints TAP on the console.
 *
 * The environment (the kernel's command line) gives calls=, seconds=, seed=.
 * The seed repeats the choices, though not how the threads are scheduled.
 *
 * Copyright (c) 2026, baremetal.noiommu contributors
 */
#define _GNU_SOURCE
#include "client.h"

#include "include/uapi/noiommu.h"

#include <linux/memfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/resource.h>

#define WORKERS		3
#define LIFE		3000	/* calls of one process */
#define ADMIN_LIFE	500
#define ERRNOS		134

enum kind {
	K_ADD, K_REMOVE, K_HINT, K_WC, K_HELD, K_BIND, K_PLUG, K_OPEN, K_CLOSE, K_GROUP,
	K_CONTAINER, K_MAP, K_UNMAP, K_DEVICE, K_PIN, K_PIN_MAP, K_PIN_QUERY,
	K_PIN_UNMAP, K_FORK, K_MISC, K_NR
};

static const char * const kind_names[K_NR] = {
	"parameter add", "parameter remove", "parameter dpdk_pa_hint",
	"parameter write_combining", "parameter held_max",
	"driver bind and unbind", "unplug and rescan", "open", "close",
	"group ioctl", "container ioctl", "VFIO map", "VFIO unmap",
	"device ioctl", "NOIOMMU_INFO", "NOIOMMU_MAP", "NOIOMMU_QUERY",
	"NOIOMMU_UNMAP", "fork", "random ioctl",
};

static const char * const devices[] = { A, B, V };

static struct {
	atomic_ulong calls;
	atomic_ulong faults;
	atomic_ulong disturbed;
	atomic_ulong checked;
	atomic_ulong wrong;
	atomic_ulong splats;
	atomic_ulong log_lines;
	atomic_ulong log_lost;
	atomic_bool quiet;		/* drivers are unbound */
	atomic_int inside[WORKERS + 1];	/* of what is not to happen meanwhile */
	atomic_ulong results[K_NR][ERRNOS];
} *shared;

static unsigned long seed;

/* Chance. Each thread has its own */

static __thread uint64_t state;

static void rnd_seed(unsigned long a, unsigned long b)
{
	state = (seed + 1) * 0x9e3779b97f4a7c15ULL ^ (a + 1) * 0xbf58476d1ce4e5b9ULL ^
		(b + 1) * 0x94d049bb133111ebULL;
	state = state ?: 1;
}

static uint64_t rnd(void)
{
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return state * 0x2545f4914f6cdd1dULL;
}

static uint64_t below(uint64_t n)
{
	return (rnd() >> 16) % n;
}

static bool percent(unsigned int n)
{
	return below(100) < n;
}

static uint64_t rnd_edge(void)
{
	static const uint64_t edges[] = {
		0, 1, PAGE - 1, PAGE, PAGE + 1, HUGE, 1ULL << 31, 1ULL << 32,
		(1ULL << 32) - PAGE, 1ULL << 39, 1ULL << 47, (1ULL << 47) - PAGE,
		1ULL << 52, 1ULL << 63, (1ULL << 63) - PAGE, -PAGE, -HUGE,
		-1ULL, -2ULL,
	};

	switch (below(4)) {
	case 0:
		return rnd();
	case 1:
		return rnd() >> below(64);
	case 2:
		return rnd() & -PAGE;
	default:
		return edges[below(sizeof(edges) / sizeof(*edges))];
	}
}

static void mutate(void *data, size_t len)
{
	unsigned char *bytes = data;
	uint64_t value;
	size_t n;

	for (n = 1 + below(3); n; n--) {
		switch (below(4)) {
		case 0:
			bytes[below(len)] ^= 1 << below(8);
			break;
		case 1:
			bytes[below(len)] = rnd();
			break;
		default:
			value = rnd_edge();
			if (len < 8)
				break;
			if (below(2))
				memcpy(bytes + below(len / 8) * 8, &value, 8);
			else
				memcpy(bytes + below(len / 4) * 4, &value, 4);
		}
	}
}

/* Calls */

static __thread int fail_fd = -1;

static void count(enum kind kind, long ret)
{
	int err = ret < 0 ? errno : 0;

	atomic_fetch_add(&shared->results[kind][err < ERRNOS ? err : ERRNOS - 1], 1);
	atomic_fetch_add(&shared->calls, 1);
}

static void arm(void)
{
	fail_nth(fail_fd, 1 + below(percent(80) ? 12 : 100));
}

static void disarm(void)
{
	if (has_failed(fail_fd))
		atomic_fetch_add(&shared->faults, 1);
}

#define CALL(kind, call) ({		\
	long ret_;			\
					\
	arm();				\
	ret_ = (call);			\
	disarm();			\
	count(kind, ret_);		\
	ret_;				\
})

/*
 * For what is mostly not the module's: VFIO 6.1, for one, warns and loses a
 * group if it cannot allocate the name of one.
 */
#define NO_FAULT(kind, call) ({		\
	long ret_ = (call);		\
					\
	count(kind, ret_);		\
	ret_;				\
})

/* Parameters and devices */

static size_t rnd_address(char *text, size_t size)
{
	static const char * const known[] = {
		A, B, V, A, B, V, A, B, V, PORT, ABSENT, "0000:00:00.0",
		"0000:00:1f.0", "0000:00:1f.2", "0000:00:1f.3", "fffffff:ff:1f.7",
		"", "\n", "0", ":", "none", "all",
	};
	size_t len, i;

	len = snprintf(text, size, "%s%s", known[below(sizeof(known) / sizeof(*known))],
		       percent(30) ? "\n" : "");
	switch (below(8)) {
	case 0:
		mutate(text, len ?: 1);
		break;
	case 1:
		/* Well-formed, and of whatever length */
		len = snprintf(text, size, "%0*llx:%02llx:%0*llx.%llx", (int)below(9),
			       (unsigned long long)below(2) * rnd_edge(),
			       (unsigned long long)below(256) * below(2), (int)below(4),
			       (unsigned long long)below(64), (unsigned long long)below(10));
		break;
	case 2:
		len = percent(10) ? size : below(64);
		for (i = 0; i < len; i++)
			text[i] = percent(50) ? "0123456789abcdef:.,\n"[below(20)] :
				  (char)rnd();
		break;
	}
	return len < size ? len : size;
}

static void call_parameter(void)
{
	static const struct {
		const char *path;
		enum kind kind;
	} files[] = {
		{ PARAM "add", K_ADD },
		{ PARAM "add", K_ADD },
		{ PARAM "remove", K_REMOVE },
		{ PARAM "dpdk_pa_hint", K_HINT },
		{ PARAM "write_combining", K_WC },
		{ PARAM "held_max", K_HELD },
	};
	const int i = below(percent(95) ? 3 : 6);
	static __thread int fds[6];
	static __thread char text[10000];
	size_t len;

	if (percent(2)) {
		free(slurp(DEBUG "devices"));
		free(slurp(DEBUG "held"));
	}
	if (!fds[i])
		fds[i] = open(files[i].path, O_WRONLY | O_CLOEXEC);
	if (files[i].kind == K_HINT) {
		text[0] = "YNyn01x"[below(7)];
		len = 1;
	} else if (files[i].kind == K_WC) {
		len = 1 + rnd_address(text + 1, 64);
		text[0] = "+-x"[below(3)];
		len += snprintf(text + len, 8, " %d", (int)below(7));
	} else if (files[i].kind == K_HELD) {
		static const char * const units[] = { "", "K", "M", "G", "x", "\n" };

		len = snprintf(text, 32, "%llu%s", (unsigned long long)rnd_edge(),
			       units[below(6)]);
	} else {
		len = rnd_address(text, percent(99) ? 128 : sizeof(text));
	}
	CALL(files[i].kind, pwrite(fds[i], text, len, 0));
}

/* Which worker this process is */
static int me;

/* May what is to leave drivers alone begin? Who is killed in it is forgotten when reaped */
static bool enter(void)
{
	atomic_fetch_add(&shared->inside[me], 1);
	if (!shared->quiet)
		return true;
	atomic_fetch_sub(&shared->inside[me], 1);
	return false;
}

static void leave(void)
{
	atomic_fetch_sub(&shared->inside[me], 1);
}

static void quiet_start(void)
{
	int i;

	shared->quiet = true;
	for (i = 0; i < WORKERS; i++) {
		while (shared->inside[i])
			usleep(200);
	}
}

/* From outside: may this worker be killed? Then it is inside until it is reaped */
static bool may_kill(int worker)
{
	if (worker == WORKERS)
		return true;
	atomic_fetch_add(&shared->inside[worker], 1);
	if (!shared->quiet)
		return true;
	atomic_fetch_sub(&shared->inside[worker], 1);
	return false;
}

/* While no container is in use */
#define QUIET(call) ({			\
	quiet_start();			\
	call;				\
	shared->quiet = false;		\
})

static long pathless(int ret)
{
	errno = -ret;
	return ret;
}

static void call_device_life(void)
{
	const char *bdf = devices[below(3)];

	switch (below(200)) {
	case 0 ... 59:
		NO_FAULT(K_BIND, pathless(bind_vfio(bdf)));
		break;
	case 60 ... 99:
		QUIET(NO_FAULT(K_BIND, pathless(unbind_vfio(bdf))));
		break;
	case 100 ... 104:
		NO_FAULT(K_BIND, pathless(drv_put("e1000e", "bind", bdf)));
		NO_FAULT(K_BIND, pathless(drv_put("e1000e", "unbind", bdf)));
		break;
	case 105:
		QUIET(NO_FAULT(K_PLUG, pathless(pci_put(bdf, "remove", "1"))));
		NO_FAULT(K_PLUG, pathless(put(PCI "rescan", "1")));
		break;
	case 106 ... 139:
		CALL(K_ADD, pathless(put(PARAM "add", bdf)));
		break;
	default:
		call_parameter();
	}
}

/* Memory */

struct memory {
	char *p;
	size_t size;
	int fd;
	bool huge;
};

#define AREAS	6
#define AREA	(4UL << 20)

static struct memory memory[AREAS];
static int pagemap = -1;

/* (Re)place one area by memory of its kind */
static void fill(int i)
{
	struct memory *m = &memory[i];
	int flags = MAP_FIXED | (percent(20) ? MAP_POPULATE : 0);
	int prot = percent(90) ? PROT_READ | PROT_WRITE : below(8);

	switch (i) {
	case 0:
		flags |= MAP_PRIVATE | MAP_ANONYMOUS;
		break;
	case 1:
		flags |= MAP_PRIVATE | MAP_ANONYMOUS;
		break;
	case 2:
		flags |= MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB;
		break;
	case 3:
		flags |= MAP_SHARED | MAP_ANONYMOUS;
		break;
	case 4:
		flags |= MAP_SHARED;
		if (m->fd < 0) {
			m->fd = memfd_create("fuzz", MFD_CLOEXEC);
			ftruncate(m->fd, AREA);
		}
		break;
	default:
		flags |= MAP_PRIVATE;
		if (m->fd < 0)
			m->fd = open("/init", O_RDONLY | O_CLOEXEC);
		prot &= ~(percent(50) ? PROT_WRITE : 0);
	}
	mmap(m->p, m->size, prot, flags, m->fd, 0);
	if (i == 1)
		madvise(m->p, m->size, MADV_HUGEPAGE);
}

static void memory_start(void)
{
	int i;

	for (i = 0; i < AREAS; i++) {
		char *p = mmap(NULL, AREA + HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS |
			       MAP_NORESERVE, -1, 0);

		memory[i].p = (char *)(((uintptr_t)p + HUGE - 1) & -HUGE);
		memory[i].size = i == 1 || i == 2 ? HUGE : 64 * PAGE;
		memory[i].fd = -1;
		memory[i].huge = i == 1 || i == 2;
		fill(i);
	}
}

/* A part of an area, or something that is none */
static void rnd_range(uint64_t *address, uint64_t *size)
{
	const struct memory *m = &memory[below(AREAS)];
	size_t pages = m->size / PAGE, first;

	switch (below(10)) {
	case 0:
		*address = rnd_edge();
		*size = rnd_edge();
		return;
	case 1:
		*address = (uintptr_t)m->p;
		*size = rnd_edge();
		return;
	case 2 ... 4:
		*address = (uintptr_t)m->p;
		*size = m->size;
		return;
	case 5:
		/* From one into the next, or into nothing */
		*address = (uintptr_t)m->p + m->size - PAGE * below(4);
		*size = PAGE * (1 + below(16));
		return;
	default:
		first = below(pages);
		*address = (uintptr_t)m->p + first * PAGE;
		*size = PAGE * (1 + below(percent(50) ? 2 : pages - first));
	}
}

/* VFIO */

/*
 * VFIO 6.1 frees what a container's ioctl works with when the last group leaves
 * the container meanwhile: because its file is closed, or its driver unbound.
 * That is not the module's fault, nor that a container may be closed while a driver
 * is unbound. So these are kept apart: the former by a lock of
 * the process, under which nobody else is in a call on these files; the latter
 * by one of all processes, see enter().
 */
static pthread_rwlock_t attached = PTHREAD_RWLOCK_INITIALIZER;

#define HELD(lock, call) ({			\
	long held_;				\
						\
	pthread_rwlock_##lock(&attached);	\
	held_ = (call);				\
	pthread_rwlock_unlock(&attached);	\
	held_;					\
})

/* A call on a container, if drivers stay bound */
#define BOUND(call) ({					\
	long bound_ = -1;				\
							\
	if (enter()) {					\
		bound_ = HELD(rdlock, call);		\
		leave();				\
	}						\
	bound_;						\
})

/* Used by all threads of a process, with no lock: that is the point */
static struct {
	volatile int pin;
	bool alone;	/* nobody changes the memory that is mapped */
	volatile int container;
	volatile int group;
	volatile int device;
	const char *bdf;
	int event;
	struct {
		volatile uint64_t iova;
		volatile uint64_t size;
	} mapped[16];
} vf;

static int take_fd(volatile int *fd, int with)
{
	return __atomic_exchange_n(fd, with, __ATOMIC_RELAXED);
}

/* enter() for what cannot be left out. Who unbinds a driver may be waiting for this device */
static void enter_at_last(void)
{
	int old;

	while (!enter()) {
		old = take_fd(&vf.device, -1);
		if (old >= 0)
			close(old);
		usleep(200);
	}
}

static void swap_fd(volatile int *fd, int with)
{
	int old = take_fd(fd, with);

	if (old < 0)
		return;
	if (fd == &vf.device) {
		HELD(wrlock, CALL(K_CLOSE, close(old)));
		return;
	}
	enter_at_last();
	HELD(wrlock, CALL(K_CLOSE, close(old)));
	leave();
}

/* An end, which closes containers. Its place is given back when it is reaped */
static void __attribute__((noreturn)) leave_life(int status)
{
	enter_at_last();
	_exit(status);
}

static void call_open(void)
{
	if (percent(20)) {
		swap_fd(&vf.pin, CALL(K_OPEN, open("/dev/noiommu", O_RDWR | O_CLOEXEC)));
		return;
	}
	if (percent(40)) {
		swap_fd(&vf.container, CALL(K_OPEN, open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC)));
		return;
	}
	if (percent(20))
		vf.bdf = devices[below(3)];
	if (vf.group >= 0)
		swap_fd(&vf.group, -1);
	if (group_of(vf.bdf) >= 0)
		vf.group = CALL(K_OPEN, open_group(vf.bdf));
}

static void call_group(void)
{
	struct vfio_group_status status = { .argsz = percent(80) ? sizeof(status) : rnd_edge() };
	int container = percent(95) ? vf.container : (int)rnd_edge();

	switch (below(40)) {
	case 0 ... 24:
		if (!HELD(rdlock, CALL(K_GROUP, ioctl(vf.group, VFIO_GROUP_SET_CONTAINER, &container))))
			BOUND(CALL(K_CONTAINER, ioctl(vf.container, VFIO_SET_IOMMU,
						percent(90) ? VFIO_TYPE1v2_IOMMU : below(12))));
		break;
	case 25 ... 27:
		HELD(wrlock, CALL(K_GROUP, ioctl(vf.group, VFIO_GROUP_UNSET_CONTAINER)));
		break;
	case 28:
		/* Resets the device, which sleeps for 100 ms */
		swap_fd(&vf.device, HELD(rdlock, CALL(K_GROUP, ioctl(vf.group, VFIO_GROUP_GET_DEVICE_FD,
							percent(80) ? vf.bdf : "nonsense"))));
		break;
	default:
		HELD(rdlock, CALL(K_GROUP, ioctl(vf.group, VFIO_GROUP_GET_STATUS, &status)));
	}
}

static void call_container(void)
{
	union {
		struct vfio_iommu_type1_info info;
		char room[512];
	} u = { .info.argsz = percent(80) ? sizeof(u) : rnd_edge() };

	switch (below(5)) {
	case 0:
		BOUND(CALL(K_CONTAINER, ioctl(vf.container, VFIO_CHECK_EXTENSION,
					percent(80) ? below(16) : rnd_edge())));
		break;
	case 1:
	case 2:
		BOUND(CALL(K_CONTAINER, ioctl(vf.container, VFIO_SET_IOMMU,
					percent(90) ? VFIO_TYPE1v2_IOMMU : rnd_edge())));
		break;
	case 3:
		if (u.info.argsz > sizeof(u))
			u.info.argsz = sizeof(u);
		/* Loses what it has allocated if the next allocation fails */
		BOUND(NO_FAULT(K_CONTAINER, ioctl(vf.container, VFIO_IOMMU_GET_INFO, &u)));
		break;
	default:
		BOUND(CALL(K_CONTAINER, ioctl(vf.container, VFIO_GET_API_VERSION)));
	}
}

static void call_map(void)
{
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
	};
	uint64_t address, size;
	int i = below(16);

	rnd_range(&address, &size);
	map.vaddr = address;
	map.size = size;
	switch (below(8)) {
	case 0:
		map.iova = rnd_edge();
		break;
	case 1:
		map.iova = address;
		break;
	case 2:
		map.iova = phys_at(pagemap, (void *)address) + PAGE * (below(5) - 2);
		break;
	default:
		map.iova = phys_at(pagemap, (void *)address);
		if (percent(30))
			map.size = PAGE;
	}
	if (percent(10))
		mutate(&map, sizeof(map));
	if (!BOUND(CALL(K_MAP, ioctl(vf.container, VFIO_IOMMU_MAP_DMA,
					     percent(99) ? (void *)&map : (void *)rnd_edge())))) {
		vf.mapped[i].iova = map.iova;
		vf.mapped[i].size = map.size;
	}
}

static void call_unmap(void)
{
	int i = below(16);
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap),
		.iova = vf.mapped[i].iova,
		.size = vf.mapped[i].size,
	};

	switch (below(10)) {
	case 0:
		unmap.iova = 0;
		unmap.size = 0;
		unmap.flags = VFIO_DMA_UNMAP_FLAG_ALL;
		break;
	case 1:
		unmap.iova = rnd_edge();
		unmap.size = rnd_edge();
		break;
	case 2:
		mutate(&unmap, sizeof(unmap));
		break;
	}
	BOUND(CALL(K_UNMAP, ioctl(vf.container, VFIO_IOMMU_UNMAP_DMA, &unmap)));
}

static void call_device(void)
{
	struct vfio_device_info info = { .argsz = sizeof(info) };
	struct vfio_irq_info irq = { .argsz = sizeof(irq), .index = below(8) };
	struct {
		struct vfio_irq_set set;
		int32_t fd;
	} set = {
		.set.argsz = sizeof(set),
		.set.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
		.set.index = below(5),
		.set.count = below(2),
		.fd = vf.event,
	};
	char config[64];

	if (!set.set.count)
		set.set.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER;
	switch (below(4)) {
	case 0:
		HELD(rdlock, CALL(K_DEVICE, ioctl(vf.device, VFIO_DEVICE_GET_INFO, &info)));
		break;
	case 1:
		HELD(rdlock, CALL(K_DEVICE, ioctl(vf.device, VFIO_DEVICE_GET_IRQ_INFO, &irq)));
		break;
	case 2:
		HELD(rdlock, CALL(K_DEVICE, ioctl(vf.device, VFIO_DEVICE_SET_IRQS, &set)));
		break;
	default:
		/* Only read: what is written to a device makes it write to memory */
		HELD(rdlock, CALL(K_DEVICE, pread(vf.device, config, sizeof(config),
				     (off_t)VFIO_PCI_CONFIG_REGION_INDEX << 40)));
	}
}

/* /dev/noiommu */

#define EXTENTS	(AREA / PAGE)

static struct {
	volatile uint64_t address;
	volatile uint64_t length;
} pins[16];

/* Are these extents where the pages of the range are? */
static bool extents_right(const struct noiommu_extent *e, uint32_t n,
			  uint64_t address, uint64_t length)
{
	static __thread uint64_t entries[EXTENTS + 1];
	uint64_t end = address + length, previous = 0, first = address / PAGE, at, entry;
	size_t want = ((end - 1) / PAGE - first + 1) * 8;

	if (want > sizeof(entries) ||
	    pread(pagemap, entries, want, first * 8) != (ssize_t)want)
		return false;
	for (; n; n--, e++) {
		if (!e->length || e->length > end - address || e->addr == previous ||
		    (e->addr ^ address) & (PAGE - 1))
			return false;
		for (at = 0; at < e->length; at += PAGE - (address + at) % PAGE) {
			entry = entries[(address + at) / PAGE - first] & ((1ULL << 55) - 1);
			if (entry * PAGE + (address + at) % PAGE != e->addr + at)
				return false;
		}
		address += e->length;
		previous = e->addr + e->length;
	}
	return address == end;
}

static void check_extents(const struct noiommu_extent *e, uint32_t n,
			  uint64_t address, uint64_t length)
{
	if (!vf.alone)
		return;
	atomic_fetch_add(&shared->checked, 1);
	if (!extents_right(e, n, address, length) &&
	    atomic_fetch_add(&shared->wrong, 1) < 4)
		printf("# wrong: %u extents of %#llx, %#llx bytes\n", n,
		       (unsigned long long)address, (unsigned long long)length);
}

/* The structure as it is, longer, or shorter; at the end of a page, or nowhere */
static long pin_call(enum kind kind, unsigned int cmd, void *arg, size_t size, bool strange)
{
	static __thread char *room;
	long ret;
	char *at;

	if (!room) {
		room = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		munmap(room + 2 * PAGE, PAGE);
	}
	if (!strange)
		return CALL(kind, ioctl(vf.pin, cmd, arg));

	at = room + 2 * PAGE - (percent(50) ? size : below(2 * size + 1));
	if (percent(30))
		at = room;
	memset(room, percent(50) ? 0 : (int)rnd(), 2 * PAGE);
	memcpy(at, arg, at + size > room + 2 * PAGE ? (size_t)(room + 2 * PAGE - at) : size);
	if (percent(50) && at + 4 <= room + 2 * PAGE)
		*(uint32_t *)at = percent(50) ? below(2 * PAGE) : rnd_edge();
	ret = CALL(kind, ioctl(vf.pin, cmd, percent(95) ? (void *)at : (void *)rnd_edge()));
	/* Not known to have been understood, so not to be used */
	return ret ?: 1;
}

static __thread struct noiommu_extent extents[EXTENTS];

static void rnd_array(uint64_t *array, uint32_t *n, bool *strange)
{
	*array = (uintptr_t)extents;
	*n = EXTENTS;
	switch (below(20)) {
	case 0:
		*n = below(4);
		break;
	case 1:
		*n = rnd_edge();
		*array = (uintptr_t)memory[below(AREAS)].p;
		*strange = true;
		break;
	case 2:
		*array = rnd_edge();
		*strange = true;
		break;
	}
}

static void call_pin_map(void)
{
	static const char dev[] = { 2, 3, 4 };
	struct noiommu_map map = {
		.size = sizeof(map),
		.device = dev[below(3)],
		.last_addr = percent(80) ? 0 : rnd_edge(),
	};
	bool strange = false;
	int i = below(16);

	rnd_range((uint64_t *)&map.user_va, (uint64_t *)&map.length);
	rnd_array((uint64_t *)&map.extents, &map.num_extents, &strange);
	if (percent(8)) {
		mutate(&map, sizeof(map));
		strange = true;
	}
	if (percent(5))
		strange = true;
	if (pin_call(K_PIN_MAP, NOIOMMU_MAP, &map, sizeof(map), strange))
		return;
	pins[i].address = map.user_va;
	pins[i].length = map.length;
	check_extents(extents, map.num_extents, map.user_va, map.length);
}

static void call_pin_query(void)
{
	struct noiommu_query query = { .size = sizeof(query) };
	bool strange = percent(5);
	int i = below(16);
	uint64_t skip;

	query.user_va = pins[i].address;
	query.length = pins[i].length;
	if (percent(70) && query.length) {
		skip = below(query.length);
		query.user_va += skip;
		query.length = 1 + below(query.length - skip);
	}
	rnd_array((uint64_t *)&query.extents, &query.num_extents, &strange);
	if (percent(5)) {
		mutate(&query, sizeof(query));
		strange = true;
	}
	if (!pin_call(K_PIN_QUERY, NOIOMMU_QUERY, &query, sizeof(query), strange))
		check_extents(extents, query.num_extents, query.user_va, query.length);
}

static void call_pin_unmap(void)
{
	struct noiommu_unmap unmap = { .size = sizeof(unmap) };
	bool strange = percent(5);
	int i = below(16);

	unmap.user_va = pins[i].address;
	unmap.length = pins[i].length;
	switch (below(40)) {
	case 0:
		unmap.user_va = 0;
		unmap.length = -1;
		break;
	case 1:
		rnd_range((uint64_t *)&unmap.user_va, (uint64_t *)&unmap.length);
		break;
	case 2:
		unmap.user_va -= PAGE;
		unmap.length += 2 * PAGE;
		break;
	case 3:
		mutate(&unmap, sizeof(unmap));
		strange = true;
		break;
	}
	pin_call(K_PIN_UNMAP, NOIOMMU_UNMAP, &unmap, sizeof(unmap), strange);
}

static void call_pin_info(void)
{
	struct noiommu_info info = { .size = sizeof(info) };

	if (percent(30))
		mutate(&info, sizeof(info));
	pin_call(K_PIN, NOIOMMU_INFO, &info, sizeof(info), percent(30));
}

static void call_pin(void)
{
	switch (below(20)) {
	case 0:
		call_pin_info();
		break;
	case 1 ... 9:
		call_pin_map();
		break;
	case 10 ... 14:
		call_pin_query();
		break;
	default:
		call_pin_unmap();
	}
}

/* Another address space with the same open files and the same addresses */
static void call_fork(void)
{
	int done[2], keep, low, high, n;
	pid_t pid;
	char c;

	if (pipe2(done, O_CLOEXEC))
		return;
	/* The child's copies must not be what keeps a group in its container */
	enter_at_last();
	pthread_rwlock_wrlock(&attached);
	pid = CALL(K_FORK, fork());
	if (pid) {
		close(done[1]);
		if (pid > 0)
			read(done[0], &c, 1);
		close(done[0]);
		pthread_rwlock_unlock(&attached);
		leave();
		if (pid > 0 && percent(50))
			waitpid(pid, NULL, 0);
		return;
	}
	keep = vf.pin > 2 ? vf.pin : done[1];
	low = keep < done[1] ? keep : done[1];
	high = keep < done[1] ? done[1] : keep;
	close_range(3, low - 1, 0);
	close_range(low + 1, high - 1, 0);
	close_range(high + 1, ~0U, 0);
	close(done[1]);
	fail_fd = -1;
	pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	for (n = below(30); n; n--)
		percent(50) ? call_pin_map() : call_pin();
	_exit(0);
}

static void call_misc(void)
{
	static const int types[] = { VFIO_TYPE, NOIOMMU_TYPE };
	char data[256];
	size_t i;
	int fds[] = { vf.container, vf.group, vf.pin };

	for (i = 0; i < sizeof(data); i++)
		data[i] = percent(60) ? 0 : rnd();
	if (!enter())
		return;
	HELD(wrlock, CALL(K_MISC, ioctl(fds[below(3)],
			   _IOC(percent(50) ? 0 : below(4), types[below(2)],
				percent(80) ? 100 * below(2) + below(24) : below(256),
				percent(50) ? 0 : below(256)),
			   percent(90) ? (void *)data : (void *)rnd_edge())));
	leave();
}

/* What happens beside the calls */
static void disturb(void)
{
	const struct memory *m;

	atomic_fetch_add(&shared->disturbed, 1);
	switch (below(24)) {
	case 0:
		swap_fd(&vf.container, -1);
		break;
	case 1:
		swap_fd(&vf.group, -1);
		break;
	case 2 ... 4:
		swap_fd(&vf.device, -1);
		break;
	case 5:
		swap_fd(&vf.pin, -1);
		break;
	case 6 ... 10:
		m = &memory[below(AREAS)];
		munmap(m->p + PAGE * below(m->size / PAGE), PAGE * (1 + below(16)));
		break;
	case 11 ... 14:
		m = &memory[below(AREAS)];
		madvise(m->p, m->size, percent(70) ? MADV_DONTNEED : MADV_REMOVE);
		break;
	case 15:
		call_unmap();
		break;
	case 16:
		call_pin_unmap();
		break;
	default:
		fill(below(AREAS));
	}
	/* The calls are to have the processor for the most part */
	usleep(below(30000));
}

/* Processes */

/* Is it somebody who may not see where memory is? */
static bool become_somebody(void)
{
	static const rlim_t limits[] = { 0, PAGE, 64 << 10, HUGE, HUGE + PAGE, 8 << 20 };
	struct rlimit limit;
	bool blind = false;

	if (percent(50)) {
		limit.rlim_cur = limits[below(sizeof(limits) / sizeof(*limits))];
		limit.rlim_max = limit.rlim_cur;
		setrlimit(RLIMIT_MEMLOCK, &limit);
	}
	if (percent(10)) {
		limit.rlim_cur = limit.rlim_max = 24 + below(16);
		setrlimit(RLIMIT_NOFILE, &limit);
	}
	if (percent(40))
		drop_cap(CAP_IPC_LOCK);
	switch (below(10)) {
	case 0:
		drop_cap(CAP_SYS_RAWIO);
		break;
	case 1:
		unshare(CLONE_NEWUSER);
		blind = true;
		break;
	case 2:
		drop_cap(CAP_SYS_ADMIN);
		blind = true;
		break;
	}
	return blind;
}

struct job {
	int worker;
	unsigned long life;
	bool faults;
};

static void *disturber(void *arg)
{
	const struct job *job = arg;

	rnd_seed(job->worker + 100, job->life);
	for (;;)
		disturb();
	return NULL;
}

static void *caller(void *arg)
{
	const struct job *job = arg;
	int n;

	rnd_seed(job->worker + 200, job->life);
	fail_fd = fail_open(job->faults);
	for (n = 0; n < LIFE; n++) {
		if (percent(50))
			call_pin();
		else if (percent(60))
			call_map();
		else
			call_unmap();
	}
	return NULL;
}

/* Get back what is needed to go further than the first check */
static void call_setup(void)
{
	int container;

	if (vf.pin < 0)
		vf.pin = CALL(K_OPEN, open("/dev/noiommu", O_RDWR | O_CLOEXEC));
	if ((vf.container >= 0 && vf.group >= 0) || percent(60))
		return;
	swap_fd(&vf.group, -1);
	swap_fd(&vf.container, CALL(K_OPEN, open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC)));
	if (group_of(vf.bdf) >= 0)
		vf.group = CALL(K_OPEN, open_group(vf.bdf));
	container = vf.container;
	if (vf.group >= 0 && !HELD(rdlock, CALL(K_GROUP, ioctl(vf.group, VFIO_GROUP_SET_CONTAINER, &container))))
		BOUND(CALL(K_CONTAINER, ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU)));
}

static void work(struct job *job)
{
	pthread_t thread;
	int n;

	me = job->worker;
	/* A mutated call may have had the kernel write anywhere */
	signal(SIGSEGV, leave_life);
	signal(SIGBUS, leave_life);
	signal(SIGILL, leave_life);
	rnd_seed(job->worker, job->life);
	job->faults = percent(30);
	pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	memory_start();
	vf.container = vf.group = vf.device = vf.pin = -1;
	vf.bdf = devices[job->worker % 3];
	vf.event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	fail_fd = fail_open(job->faults);
	/* One who has the files may be somebody else than who opened them */
	if (percent(50))
		call_setup();
	vf.alone = !become_somebody() && percent(40);
	if (!vf.alone) {
		pthread_create(&thread, NULL, disturber, job);
		if (percent(50))
			pthread_create(&thread, NULL, caller, job);
	}
	for (n = 0; n < LIFE; n++) {
		if (percent(5))
			call_setup();
		switch (below(200)) {
		case 0 ... 1:
			call_open();
			break;
		case 2 ... 9:
			call_group();
			break;
		case 10 ... 14:
			call_container();
			break;
		case 15 ... 54:
			call_map();
			break;
		case 55 ... 69:
			call_unmap();
			break;
		case 70 ... 74:
			call_device();
			break;
		case 75 ... 84:
			call_misc();
			break;
		case 85:
			if (!job->faults && percent(50))
				call_fork();
			break;
		case 86 ... 184:
			call_pin();
			break;
		default:
			/* While its driver waits for that, a writer waits for seconds */
			if (percent(95))
				swap_fd(&vf.device, -1);
			call_parameter();
		}
	}
	leave_life(0);
}

static void administer(struct job *job)
{
	int n;

	rnd_seed(job->worker, job->life);
	fail_fd = fail_open(percent(40));
	if (percent(10))
		drop_cap(CAP_SYS_RAWIO);
	for (n = 0; n < ADMIN_LIFE; n++) {
		call_device_life();
		usleep(below(20000));
	}
	_exit(0);
}

/* The kernel's log */

static void watch_log(void)
{
	static const char * const bad[] = {
		"BUG:", "WARNING:", "KASAN", "UBSAN", "Oops",
		"general protection fault,",	/* a program's has no comma */
		"unable to handle", "possible circular", "possible recursive",
		"inconsistent lock state", "suspicious RCU", "INFO: task", "rcu: INFO",
		"ODEBUG", "refcount_t", "corruption", "Objects remaining",
		"unregister_netdevice", "blocked for more than",
	};
	int fd = open("/dev/kmsg", O_RDONLY | O_CLOEXEC), context = 0;
	char line[4096], *text;
	unsigned int i;
	ssize_t len;

	for (;;) {
		len = read(fd, line, sizeof(line) - 1);
		if (len < 0) {
			if (errno == EPIPE)
				atomic_fetch_add(&shared->log_lost, 1);
			continue;
		}
		line[len] = '\0';
		atomic_fetch_add(&shared->log_lines, 1);
		text = strchr(line, ';') ? strchr(line, ';') + 1 : line;
		text[strcspn(text, "\n")] = '\0';
		for (i = 0; i < sizeof(bad) / sizeof(*bad) && !context; i++) {
			if (strstr(text, bad[i]) &&
			    atomic_fetch_add(&shared->splats, 1) < 4)
				context = 80;
		}
		if (context) {
			context--;
			printf("# kernel: %s\n", text);
		}
	}
}

static pid_t spawn(void (*fn)(struct job *), int worker, unsigned long life)
{
	struct job job = { .worker = worker, .life = life };
	pid_t pid = fork();

	if (!pid) {
		fn(&job);
		_exit(1);
	}
	return pid;
}

static void report(void)
{
	unsigned long n, sum;
	int k, e;

	for (k = 0; k < K_NR; k++) {
		for (e = 0, sum = 0; e < ERRNOS; e++)
			sum += shared->results[k][e];
		printf("# %lu %s:", sum, kind_names[k]);
		for (e = 0; e < ERRNOS; e++) {
			n = shared->results[k][e];
			if (n)
				printf(" %s %lu", e ? strerrorname_np(e) ?: "?" : "success", n);
		}
		printf("\n");
	}
}

static void remove_all(void)
{
	char path[PATH_MAX];
	struct dirent *e;
	unsigned int i;
	DIR *dir;

	put(PCI "rescan", "1");
	for (i = 0; i < 3; i++)
		pci_put(devices[i], "driver/unbind", devices[i]);
	dir = opendir(IOMMUS);
	while (dir && (e = readdir(dir))) {
		if (strncmp(e->d_name, "noiommu-", 8))
			continue;
		snprintf(path, sizeof(path), "%s", e->d_name + 8);
		if (put(PARAM "remove", path))
			printf("# cannot remove %s: %m\n", path);
	}
	if (dir)
		closedir(dir);
}

int main(void)
{
	unsigned long calls = number("calls", 1000000), life = 0, next_kill = 2000;
	double limit = number("seconds", 600), began, next, next_shot;
	long pinned_before, huge_before;
	pid_t pids[WORKERS + 1] = { 0 }, watcher, pid;
	int i, status;

	start("16", false);
	seed = number("seed", time(NULL));
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (load("e1000e", "") || load("noiommu", "devices=" A "," B "," V))
		die("modules");
	faults_start();
	for (i = 0; i < 3; i++)
		bind_vfio(devices[i]);
	huge_before = huge_free();
	pinned_before = pinned();
	put(LEAKS, "clear");
	watcher = fork();
	if (!watcher)
		watch_log();

	printf("# seed=%lu calls=%lu seconds=%.0f\n", seed, calls, limit);
	rnd_seed(999, 0);
	began = now();
	next = began + 15;
	next_shot = began + 5;
	while (shared->calls < calls && now() - began < limit && shared->splats < 8) {
		for (i = 0; i <= WORKERS; i++) {
			if (!pids[i])
				pids[i] = spawn(i < WORKERS ? work : administer, i, life++);
		}
		usleep(20000);
		/* By time as well, for those that wait for each other */
		if (shared->calls > next_kill || now() > next_shot) {
			next_kill = shared->calls + below(4000);
			next_shot = now() + 5;
			i = below(WORKERS + 1);
			if (may_kill(i))
				kill(pids[i], SIGKILL);
		}
		while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
			for (i = 0; i <= WORKERS; i++) {
				if (pids[i] != pid)
					continue;
				pids[i] = 0;
				shared->inside[i] = 0;
				if (i == WORKERS)
					shared->quiet = false;
			}
		}
		if (now() >= next) {
			printf("# %lu calls, %lu faults, %lu processes, %.0f s\n",
			       shared->calls, shared->faults, life, now() - began);
			next += 15;
		}
	}
	/* Who unbinds drivers goes first, while those that it may wait for are there */
	for (i = WORKERS; i >= 0; i--) {
		if (!pids[i])
			continue;
		kill(pids[i], SIGKILL);
		waitpid(pids[i], NULL, 0);
		shared->inside[i] = 0;
		if (i == WORKERS)
			shared->quiet = false;
	}
	printf("# %lu calls in %.0f s by %lu processes, %lu of them with a failed allocation or copy, %lu disturbances\n",
	       shared->calls, now() - began, life, shared->faults, shared->disturbed);
	report();
	ok(shared->calls >= calls, "%lu calls were made", shared->calls);
	ok(access("/proc/self/fail-nth", F_OK) || shared->faults > calls / 1000,
	   "%lu of them had a fault", shared->faults);

	ok(!shared->wrong && shared->checked, "%lu lists of extents were compared with pagemap, %lu wrong",
	   shared->checked, shared->wrong);

	remove_all();
	ok(!entries(GROUPS) && !entries(IOMMUS), "no group and no IOMMU is left");
	sleep(1);
	ok(!read_number("/sys/module/noiommu/refcnt", NULL), "the module has %ld references",
	   read_number("/sys/module/noiommu/refcnt", NULL));
	ok(pinned() == pinned_before, "%ld pages pinned, were %ld", pinned(), pinned_before);
	ok(huge_free() == huge_before, "%ld huge pages free, were %ld",
	   huge_free(), huge_before);
	check_leaks();
	ok(!unload("noiommu"), "the module can be unloaded");
	ok(!load("noiommu", "devices=" A) && group_of(A) >= 0, "and loaded again");
	ok(access("/proc/lockdep_stats", F_OK) || read_number("/proc/lockdep_stats", "debug_locks") == 1,
	   "lockdep has not found anything");
	ok(!(taint() & TAINT_BUGS), "the kernel has not complained (taint %ld)",
	   (long)taint());
	kill(watcher, SIGKILL);
	waitpid(watcher, NULL, 0);
	ok(!shared->splats, "nothing bad in %lu lines of the kernel's log, which overran %lu times",
	   shared->log_lines, shared->log_lost);
	finish();
}
