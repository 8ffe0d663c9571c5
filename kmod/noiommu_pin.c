// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * /dev/noiommu: pins memory and tells its bus addresses.
 *
 * Copyright (c) 2026, baremetal.noiommu contributors
 *
 * The rule: memory that was reported stays where it is until it is unmapped, or
 * until the file is closed and no device can be writing to it any more.
 *
 * include/uapi/noiommu.h describes the interface, with all promises and errors.
 *
 * A mapping is stored as its extents, 16 bytes each, however many pages they
 * cover. Every page is pinned, except that a hugetlb folio gets a single pin for
 * each place in the buffer where it is mapped, since it can neither be split nor
 * mapped in part. Unpinning finds these by walking from folio to folio.
 *
 * When a process is killed, the kernel closes its files in arbitrary order, and
 * its device may still be writing when the file with its memory is closed. So the
 * mappings of a closed file are held until every device that may know of them has
 * been stopped. Such a device is in use at the last close, and either the memory
 * was mapped for it, or the process that uses it owns the memory.
 *
 * A pin gives a device no access that it did not have before. So the kernel is not
 * tainted here but where a device is handed over. Physical addresses still need
 * protection, hence the capability.
 *
 * Locking: the lock of the open file, then mmap_lock of the caller. held_lock is
 * independent of these.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/atomic.h>
#include <linux/capability.h>
#include <linux/debugfs.h>
#include <linux/fs.h>
#include <linux/hugetlb.h>
#include <linux/list.h>
#include <linux/magic.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/nospec.h>
#include <linux/overflow.h>
#include <linux/pci.h>
#include <linux/rbtree.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/security.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/workqueue.h>

#include "include/uapi/noiommu.h"
#include "noiommu.h"
#include "noiommu_trace.h"

/* Pages to pin or unpin at once: as many as one page holds pointers to */
#define BATCH	(PAGE_SIZE / sizeof(struct page *))

/**
 * struct extent - contiguous pages of a mapping
 * @index: number of pages of the buffer that come before them
 * @pfn: the first page frame
 */
struct extent {
	unsigned long index;
	unsigned long pfn;
};

/**
 * struct mapping - a pinned buffer
 * @node: in the file's tree, ordered by @mm and @start
 * @mm: the address space that @start is in and that is charged for the memory;
 *	only the structure is held, not the memory that it describes
 * @start: where the buffer starts
 * @npages: its size
 * @nr: number of extents
 * @device: number of the device that it was mapped for
 * @hugetlb: some of it is hugetlb memory
 * @extents: where it is
 */
struct mapping {
	struct rb_node node;
	struct mm_struct *mm;
	unsigned long start;
	unsigned long npages;
	unsigned long nr;
	u32 device;
	bool hugetlb;
	struct extent extents[];
};

/**
 * struct pin_file - an open file, or one that was closed and whose mappings are
 *	still held
 * @lock: held throughout each call
 * @mappings: the mappings made through it
 * @waiter: waits for uses of devices after the last close
 * @held: in held_files, from the last close on
 * @npages: number of pages that it had mapped at the last close
 * @name: what the process was called that closed it
 * @pid: the number of that process
 * @since: when that was, in jiffies
 */
struct pin_file {
	struct mutex lock; /* for a whole call */
	struct rb_root mappings;
	struct noiommu_waiter waiter;
	struct list_head held;
	unsigned long npages;
	char name[TASK_COMM_LEN];
	pid_t pid;
	unsigned long since;
};

/**
 * struct pinning - a mapping in the making
 * @pages: room for BATCH pages
 * @extents: extents so far
 * @nr: number of extents
 * @room: number of extents that there is room for
 * @npages: number of pages in all extents
 * @next: the page frame that would extend the last extent
 * @top: the highest page frame so far
 * @reach: number of page frames, from 0, that may be pinned
 * @hugetlb: some of it is hugetlb memory
 * @single: pin a single page next, since it may be hugetlb memory
 */
struct pinning {
	struct page **pages;
	struct extent *extents;
	unsigned long nr;
	unsigned long room;
	unsigned long npages;
	unsigned long next;
	unsigned long top;
	u64 reach;
	bool hugetlb;
	bool single;
};

static unsigned long mapping_end(const struct mapping *m)
{
	return m->start + (m->npages << PAGE_SHIFT);
}

/* Pinning */

static unsigned long rest_of_folio(struct folio *folio, unsigned long pfn)
{
	return folio_pfn(folio) + folio_nr_pages(folio) - pfn;
}

/* Unpin some of @left contiguous pages, and return how many those are */
static unsigned long unpin_some(unsigned long pfn, unsigned long left,
				bool hugetlb)
{
	struct page *page = pfn_to_page(pfn);
	unsigned long covered = min(left, BATCH), pins = covered;

	if (hugetlb) {
		struct folio *folio = page_folio(page);

		covered = min(left, rest_of_folio(folio, pfn));
		pins = folio_test_hugetlb(folio) ? 1 : covered;
	}
	unpin_user_page_range_dirty_lock(page, pins, true);
	return covered;
}

static void unpin_extents(const struct extent *extents, unsigned long nr,
			  unsigned long npages, bool hugetlb)
{
	unsigned long i, n;

	for (i = 0; i < nr; i++) {
		unsigned long end = i + 1 < nr ? extents[i + 1].index : npages;
		unsigned long left = end - extents[i].index;
		unsigned long pfn = extents[i].pfn;

		for (; left; left -= n, pfn += n) {
			n = unpin_some(pfn, left, hugetlb);
			cond_resched();
		}
	}
}

static int add_extent(struct pinning *p, unsigned long pfn)
{
	if (p->nr == p->room) {
		unsigned long room = p->room ? p->room * 2 : 32;
		struct extent *more;

		more = kvmalloc_array(room, sizeof(*more),
				      GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
		if (!more)
			return -ENOMEM;
		if (p->nr)
			memcpy(more, p->extents, p->nr * sizeof(*more));
		kvfree(p->extents);
		p->extents = more;
		p->room = room;
	}

	p->extents[p->nr].index = p->npages;
	p->extents[p->nr].pfn = pfn;
	p->nr++;
	return 0;
}

/*
 * Refuse page cache, because a device would write to it without its filesystem
 * knowing, and pages that a driver has mapped, because they belong to the driver.
 */
static bool is_user_memory(struct folio *folio)
{
	return folio_test_swapbacked(folio) || folio_test_anon(folio) ||
	       folio_test_hugetlb(folio);
}

/*
 * Append those of @got pinned pages that are contiguous and in the same folio as
 * the first, and return how many of them that were
 */
static long append_folio(struct pinning *p, struct page **pages, long got,
			 unsigned long want)
{
	unsigned long pfn = page_to_pfn(pages[0]), n = 1, covered = 1;
	struct folio *folio = page_folio(pages[0]);

	if (!is_user_memory(folio))
		return -EOPNOTSUPP;

	p->single = false;
	if (folio_test_large(folio)) {
		unsigned long rest = rest_of_folio(folio, pfn);
		unsigned long max = min_t(unsigned long, got, rest);

		while (n < max && page_to_pfn(pages[n]) == pfn + n)
			n++;
		p->single = folio_test_hugetlb(folio);
		/* All of the folio, unless the mapping is being changed meanwhile */
		covered = p->single && n == max ? min(rest, want) : n;
	}

	if (pfn != p->next || !p->nr) {
		int ret = add_extent(p, pfn);

		if (ret)
			return ret;
	}
	p->next = pfn + covered;
	p->top = max(p->top, p->next - 1);
	p->npages += covered;

	if (p->single) {
		p->hugetlb = true;
		if (n > 1)
			unpin_user_page_range_dirty_lock(pfn_to_page(pfn + 1),
							 n - 1, false);
	}
	return n;
}

/* Find out why the kernel did not pin this page */
static int explain_fault(unsigned long va)
{
	struct vm_area_struct *vma;
	int ret = -EFAULT;

	if (mmap_read_lock_killable(current->mm))
		return -EINTR;
	vma = find_vma(current->mm, va);
	if (vma && vma->vm_start <= va && vma->vm_flags & VM_WRITE) {
		if (vma->vm_flags & (VM_IO | VM_PFNMAP))
			ret = -EOPNOTSUPP;
		else if (vma->vm_flags & VM_SHARED && vma->vm_file &&
			 !is_vm_hugetlb_page(vma) &&
			 vma->vm_file->f_mapping->host->i_sb->s_magic != TMPFS_MAGIC)
			ret = -EOPNOTSUPP;
	}
	mmap_read_unlock(current->mm);
	return ret;
}

/* Pin @npages at @start; on error, what is in @p stays pinned */
static int pin_pages(struct pinning *p, unsigned long start,
		     unsigned long npages)
{
	while (p->npages < npages) {
		unsigned long va = start + (p->npages << PAGE_SHIFT);
		unsigned long want = npages - p->npages;
		long got, done, n;

		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();

		/* append_folio() would unpin more pages of hugetlb at once */
		got = pin_user_pages_fast(va, p->single ? 1 : min(want, BATCH),
					  FOLL_WRITE | FOLL_LONGTERM, p->pages);
		if (got == -EFAULT || !got)
			return explain_fault(va);
		/* Memory of a device: -EREMOTEIO with struct page, -EEXIST without */
		if (got == -EREMOTEIO || got == -EEXIST)
			return -EOPNOTSUPP;
		if (got < 0)
			return got;

		for (done = 0; done < got; done += n) {
			n = append_folio(p, p->pages + done, got - done,
					 npages - p->npages);
			if (n < 0) {
				unpin_user_pages(p->pages + done, got - done);
				return n;
			}
		}
		if (p->top >= p->reach)
			return -ERANGE;
	}
	return 0;
}

/* Undo account_locked_vm(), unless the address space is gone */
static void unaccount(struct mm_struct *mm, unsigned long npages)
{
	if (mmget_not_zero(mm)) {
		account_locked_vm(mm, npages, false);
		mmput(mm);
	}
}

/* Pin a buffer of the caller's address space and account for it */
static struct mapping *create_mapping(unsigned long start,
				      unsigned long npages, u64 limit,
				      u32 device)
{
	struct pinning p = {
		.reach = (limit >> PAGE_SHIFT) + !(~limit & ~PAGE_MASK),
		.single = true,
	};
	struct mapping *m;
	int ret;

	ret = account_locked_vm(current->mm, npages, true);
	if (ret)
		return ERR_PTR(ret);

	p.pages = kmalloc_array(BATCH, sizeof(*p.pages), GFP_KERNEL);
	ret = p.pages ? pin_pages(&p, start, npages) : -ENOMEM;
	kfree(p.pages);
	if (ret)
		goto err;

	m = kvmalloc(struct_size(m, extents, p.nr),
		     GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
	if (!m) {
		ret = -ENOMEM;
		goto err;
	}
	mmgrab(current->mm);
	m->mm = current->mm;
	m->device = device;
	m->start = start;
	m->npages = npages;
	m->nr = p.nr;
	m->hugetlb = p.hugetlb;
	memcpy(m->extents, p.extents, p.nr * sizeof(*p.extents));
	kvfree(p.extents);
	return m;

err:
	unpin_extents(p.extents, p.nr, p.npages, p.hugetlb);
	kvfree(p.extents);
	unaccount(current->mm, npages);
	return ERR_PTR(ret);
}

static void unpin_mapping(struct mapping *m)
{
	unpin_extents(m->extents, m->nr, m->npages, m->hugetlb);
}

/* May wait long, for whoever has locked the address space */
static void free_mapping(struct mapping *m)
{
	unaccount(m->mm, m->npages);
	mmdrop(m->mm);
	kvfree(m);
}

static void destroy_mapping(struct mapping *m)
{
	unpin_mapping(m);
	free_mapping(m);
}

/* The mappings of a file */

static struct mapping *to_mapping(struct rb_node *node)
{
	return rb_entry_safe(node, struct mapping, node);
}

/* The caller's first mapping that ends after @va */
static struct mapping *find_mapping(struct pin_file *pf, unsigned long va)
{
	struct rb_node *node = pf->mappings.rb_node;
	struct mapping *found = NULL;

	while (node) {
		struct mapping *m = to_mapping(node);

		if (m->mm < current->mm ||
		    (m->mm == current->mm && mapping_end(m) - 1 < va)) {
			node = node->rb_right;
		} else {
			if (m->mm == current->mm)
				found = m;
			node = node->rb_left;
		}
	}
	return found;
}

static struct mapping *next_mapping(struct mapping *m)
{
	m = to_mapping(rb_next(&m->node));
	return m && m->mm == current->mm ? m : NULL;
}

static void insert_mapping(struct pin_file *pf, struct mapping *new)
{
	struct rb_node **link = &pf->mappings.rb_node, *parent = NULL;

	while (*link) {
		struct mapping *m = to_mapping(*link);

		parent = *link;
		if (new->mm < m->mm ||
		    (new->mm == m->mm && new->start < m->start))
			link = &parent->rb_left;
		else
			link = &parent->rb_right;
	}
	rb_link_node(&new->node, parent, link);
	rb_insert_color(&new->node, &pf->mappings);
}

/* Return the number of the extent that a page of the mapping is in */
static unsigned long find_extent(const struct mapping *m, unsigned long index)
{
	unsigned long low = 0, high = m->nr;

	while (high - low > 1) {
		unsigned long mid = low + (high - low) / 2;

		if (m->extents[mid].index <= index)
			low = mid;
		else
			high = mid;
	}
	return low;
}

/*
 * Write the extents of a mapping from byte @from up to, but not including, byte
 * @to, and their number; only the number if it exceeds @room
 */
static int put_extents(const struct mapping *m, u64 from, u64 to,
		       struct noiommu_extent __user *out, u32 room,
		       u32 __user *count)
{
	unsigned long first = find_extent(m, from >> PAGE_SHIFT);
	unsigned long last = find_extent(m, (to - 1) >> PAGE_SHIFT);
	struct noiommu_extent buf[32];
	unsigned long i, n = 0;

	if (put_user((u32)min(last - first + 1, (unsigned long)U32_MAX), count))
		return -EFAULT;
	if (last - first >= room)
		return -EMSGSIZE;

	for (i = first; i <= last; i++) {
		const struct extent *e = &m->extents[i];
		u64 start = (u64)e->index << PAGE_SHIFT;
		u64 end = (u64)(i + 1 < m->nr ? e[1].index : m->npages)
			  << PAGE_SHIFT;

		end = min(end, to);
		buf[n].addr = (u64)e->pfn << PAGE_SHIFT;
		if (start < from) {
			buf[n].addr += from - start;
			start = from;
		}
		buf[n++].length = end - start;

		if (n == ARRAY_SIZE(buf) || i == last) {
			if (copy_to_user(out, buf, n * sizeof(*buf)))
				return -EFAULT;
			out += n;
			n = 0;
			cond_resched();
		}
	}
	return 0;
}

/*
 * Memory of closed files. No process can be asked about it, and nobody's limit
 * counts it, so it is bounded here: while there is more than held_max, nothing new
 * is mapped. The memory that is held already must stay. As each file that is
 * closed adds no more than it had mapped, the total cannot exceed held_max by more
 * than what was mapped at the time when that was reached.
 */

/* Do not log what is held only because a process's files are closed one by one */
#define HELD_LONG	(5 * HZ)

static DEFINE_MUTEX(held_lock);
static LIST_HEAD(held_files);
static atomic_long_t held_pages;
static unsigned long held_max_pages = ULONG_MAX;
static unsigned long held_logged;

static void log_held(struct work_struct *work)
{
	unsigned long npages = atomic_long_read(&held_pages);

	if (npages == READ_ONCE(held_logged))
		return;
	WRITE_ONCE(held_logged, npages);
	if (npages)
		pr_info("%lu KiB of closed files stay pinned until the devices that may write to them are released\n",
			npages << (PAGE_SHIFT - 10));
	else
		pr_info("all memory of closed files has been freed\n");
}

static DECLARE_DELAYED_WORK(log_work, log_held);

static int check_held(void)
{
	unsigned long npages = atomic_long_read(&held_pages);

	if (npages <= READ_ONCE(held_max_pages))
		return 0;
	pr_warn_ratelimited("refused to map memory of %s[%d]: %lu KiB of closed files are pinned, which is more than held_max\n",
			    current->comm, task_pid_nr(current),
			    npages << (PAGE_SHIFT - 10));
	return -ENOMEM;
}

static void hold_file(struct pin_file *pf)
{
	struct rb_node *node;

	for (node = rb_first(&pf->mappings); node; node = rb_next(node))
		pf->npages += to_mapping(node)->npages;
	pf->pid = task_tgid_nr(current);
	pf->since = jiffies;
	get_task_comm(pf->name, current);

	atomic_long_add(pf->npages, &held_pages);
	mutex_lock(&held_lock);
	list_add_tail(&pf->held, &held_files);
	mutex_unlock(&held_lock);
}

static void unhold_file(struct pin_file *pf)
{
	mutex_lock(&held_lock);
	list_del(&pf->held);
	mutex_unlock(&held_lock);
	if (!atomic_long_sub_return(pf->npages, &held_pages) && READ_ONCE(held_logged))
		schedule_delayed_work(&log_work, 0);
}

/* debugfs: noiommu/held */
static int held_show(struct seq_file *m, void *unused)
{
	struct pin_file *pf;

	mutex_lock(&held_lock);
	list_for_each_entry(pf, &held_files, held)
		seq_printf(m, "%lu KiB closed by %*pE[%d] %lu s ago\n",
			   pf->npages << (PAGE_SHIFT - 10),
			   (int)strnlen(pf->name, sizeof(pf->name)), pf->name, pf->pid,
			   (jiffies - pf->since) / HZ);
	mutex_unlock(&held_lock);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(held);

/**
 * noiommu_pin_held() - how much memory of closed files is still pinned
 *
 * Return: the number of bytes.
 */
u64 noiommu_pin_held(void)
{
	return (u64)atomic_long_read(&held_pages) << PAGE_SHIFT;
}

/**
 * noiommu_pin_held_max() - how much of it there may be before maps are refused
 *
 * Return: the number of bytes.
 */
u64 noiommu_pin_held_max(void)
{
	return (u64)READ_ONCE(held_max_pages) << PAGE_SHIFT;
}

/**
 * noiommu_pin_set_held_max() - say how much of it there may be
 * @bytes: how much, rounded down to pages
 */
void noiommu_pin_set_held_max(u64 bytes)
{
	WRITE_ONCE(held_max_pages, bytes >> PAGE_SHIFT);
}

/* Calls */

union argument {
	struct noiommu_info info;
	struct noiommu_map map;
	struct noiommu_query query;
	struct noiommu_unmap unmap;
};

static int check_user(void)
{
	if (!capable(CAP_SYS_RAWIO))
		return -EPERM;
	return security_locked_down(LOCKDOWN_PCI_ACCESS);
}

/* Check a range of addresses, and set @last to its last byte */
static int check_range(u64 va, u64 length, unsigned long *last)
{
	if (!length)
		return -EINVAL;
	if (va != (unsigned long)va || length != (unsigned long)length ||
	    check_add_overflow((unsigned long)va, (unsigned long)length - 1,
			       last))
		return -EOVERFLOW;
	return 0;
}

static int do_info(struct pin_file *pf, union argument *arg, void __user *uarg)
{
	struct noiommu_info __user *user = uarg;

	if (arg->info.flags)
		return -EINVAL;
	if (put_user(NOIOMMU_VERSION, &user->out_version) ||
	    put_user(PAGE_SIZE, &user->out_page_size))
		return -EFAULT;
	return 0;
}

static int (*device_reach)(int segment, u8 bus, u8 devfn, u64 *limit, u32 *id);

static int do_map(struct pin_file *pf, union argument *arg, void __user *uarg)
{
	struct noiommu_map __user *user = uarg;
	struct noiommu_map *map = &arg->map;
	unsigned long last;
	struct mapping *m;
	u32 device;
	u64 limit;
	u8 devfn;
	int ret;

	ret = check_user();
	if (ret)
		return ret;
	if (map->flags || map->__reserved || map->__reserved2 ||
	    map->device > 0x1f || map->function > 7)
		return -EINVAL;
	ret = check_range(map->user_va, map->length, &last);
	if (ret)
		return ret;
	if (!PAGE_ALIGNED(map->user_va | map->length))
		return -EINVAL;

	devfn = PCI_DEVFN(map->device, map->function);
	ret = device_reach(map->segment, map->bus, devfn, &limit, &device);
	if (ret)
		return ret;
	if (map->last_addr)
		limit = min(limit, (u64)map->last_addr);

	m = find_mapping(pf, map->user_va);
	if (m && m->start <= last)
		return -EEXIST;
	if (!access_ok((void __user *)(unsigned long)map->user_va, map->length))
		return -EFAULT;
	ret = check_held();
	if (ret)
		return ret;

	m = create_mapping(map->user_va, map->length >> PAGE_SHIFT, limit,
			   device);
	if (IS_ERR(m))
		return PTR_ERR(m);
	ret = put_extents(m, 0, map->length, u64_to_user_ptr(map->extents),
			  map->num_extents, &user->num_extents);
	if (ret) {
		destroy_mapping(m);
		return ret;
	}
	insert_mapping(pf, m);
	trace_noiommu_map(map->segment, map->bus, devfn, m->npages, m->nr);
	return 0;
}

static int do_query(struct pin_file *pf, union argument *arg,
		    void __user *uarg)
{
	struct noiommu_query __user *user = uarg;
	struct noiommu_query *query = &arg->query;
	unsigned long last;
	struct mapping *m;
	u64 from;
	int ret;

	if (query->flags || query->__reserved)
		return -EINVAL;
	ret = check_range(query->user_va, query->length, &last);
	if (ret)
		return ret;

	m = find_mapping(pf, query->user_va);
	if (!m || m->start > query->user_va || last > mapping_end(m) - 1)
		return -ENOENT;
	from = query->user_va - m->start;
	return put_extents(m, from, from + query->length,
			   u64_to_user_ptr(query->extents),
			   query->num_extents, &user->num_extents);
}

static int do_unmap(struct pin_file *pf, union argument *arg,
		    void __user *uarg)
{
	struct noiommu_unmap __user *user = uarg;
	struct noiommu_unmap *unmap = &arg->unmap;
	struct mapping *m, *next;
	unsigned long last;
	u64 length = 0;
	int ret;

	if (unmap->flags)
		return -EINVAL;
	ret = check_range(unmap->user_va, unmap->length, &last);
	if (ret)
		return ret;

	for (m = find_mapping(pf, unmap->user_va); m && m->start <= last;
	     m = next_mapping(m)) {
		if (m->start < unmap->user_va || mapping_end(m) - 1 > last)
			return -ENOENT;
		length += (u64)m->npages << PAGE_SHIFT;
	}
	if (!length)
		return -ENOENT;
	if (put_user(length, &user->length))
		return -EFAULT;

	for (m = find_mapping(pf, unmap->user_va); m && m->start <= last;
	     m = next) {
		next = next_mapping(m);
		rb_erase(&m->node, &pf->mappings);
		trace_noiommu_unmap(m->npages);
		destroy_mapping(m);
	}
	return 0;
}

/*
 * Indexed by number. There is only one size each, since no version after the first
 * has changed any.
 */
static const struct {
	unsigned int cmd;
	unsigned int size;
	int (*fn)(struct pin_file *pf, union argument *arg, void __user *uarg);
} calls[] = {
	{ NOIOMMU_INFO, sizeof(struct noiommu_info), do_info },
	{ NOIOMMU_MAP, sizeof(struct noiommu_map), do_map },
	{ NOIOMMU_QUERY, sizeof(struct noiommu_query), do_query },
	{ NOIOMMU_UNMAP, sizeof(struct noiommu_unmap), do_unmap },
};

static long pin_ioctl(struct file *file, unsigned int cmd, unsigned long uptr)
{
	void __user *uarg = (void __user *)uptr;
	struct pin_file *pf = file->private_data;
	unsigned int nr = _IOC_NR(cmd);
	union argument arg;
	u32 size;
	int ret;

	if (nr >= ARRAY_SIZE(calls))
		return -ENOTTY;
	nr = array_index_nospec(nr, ARRAY_SIZE(calls));
	if (calls[nr].cmd != cmd)
		return -ENOTTY;

	if (get_user(size, (u32 __user *)uarg))
		return -EFAULT;
	if (size < calls[nr].size)
		return -EINVAL;
	if (size > PAGE_SIZE)
		return -E2BIG;
	ret = copy_struct_from_user(&arg, calls[nr].size, uarg, size);
	if (ret)
		return ret;

	if (mutex_lock_interruptible(&pf->lock))
		return -EINTR;
	ret = calls[nr].fn(pf, &arg, uarg);
	mutex_unlock(&pf->lock);
	return ret;
}

static int pin_open(struct inode *inode, struct file *file)
{
	struct pin_file *pf;
	int ret;

	ret = check_user();
	if (ret)
		return ret;

	pf = kzalloc(sizeof(*pf), GFP_KERNEL_ACCOUNT);
	if (!pf)
		return -ENOMEM;
	mutex_init(&pf->lock);
	pf->mappings = RB_ROOT;
	file->private_data = pf;
	return nonseekable_open(inode, file);
}

static void unpin_file(struct pin_file *pf)
{
	struct mapping *m, *next;

	rbtree_postorder_for_each_entry_safe(m, next, &pf->mappings, node)
		unpin_mapping(m);
}

static void free_file(struct pin_file *pf)
{
	struct mapping *m, *next;

	rbtree_postorder_for_each_entry_safe(m, next, &pf->mappings, node)
		free_mapping(m);
	kfree(pf);
}

/* May this device, which this user has, write to memory of the file? */
static bool use_concerns(struct noiommu_waiter *waiter, u32 device,
			 const struct mm_struct *user)
{
	struct pin_file *pf = container_of(waiter, struct pin_file, waiter);
	struct rb_node *node;

	for (node = rb_first(&pf->mappings); node; node = rb_next(node)) {
		struct mapping *m = to_mapping(node);

		if (m->device == device || m->mm == user)
			return true;
		cond_resched();
	}
	return false;
}

/**
 * noiommu_pin_settle() - free the memory of closed files
 * @waiters: the files, whose devices have been stopped
 *
 * The memory of all files comes first, because what follows may have to wait.
 */
void noiommu_pin_settle(struct list_head *waiters)
{
	struct pin_file *pf, *next;

	list_for_each_entry(pf, waiters, waiter.entry) {
		unpin_file(pf);
		trace_noiommu_release(pf->npages);
		unhold_file(pf);
	}
	list_for_each_entry_safe(pf, next, waiters, waiter.entry)
		free_file(pf);
}

static int pin_release(struct inode *inode, struct file *file)
{
	struct pin_file *pf = file->private_data;
	unsigned long npages;

	hold_file(pf);
	npages = pf->npages;
	/* If it waits, noiommu_pin_settle() may free it at any time */
	if (noiommu_use_wait(&pf->waiter, use_concerns)) {
		trace_noiommu_hold(npages);
		schedule_delayed_work(&log_work, HELD_LONG);
		return 0;
	}

	/* It did not have to wait, so it must not count for check_held() */
	unhold_file(pf);
	unpin_file(pf);
	free_file(pf);
	return 0;
}

static const struct file_operations pin_fops = {
	.owner		= THIS_MODULE,
	.open		= pin_open,
	.release	= pin_release,
	.unlocked_ioctl	= pin_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
};

static struct miscdevice pin_device = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= KBUILD_MODNAME,
	.fops	= &pin_fops,
	.mode	= 0600,
};

/**
 * noiommu_pin_init() - bring up /dev/noiommu
 * @reach: tells what memory an added device reaches, see noiommu_iommu_reach()
 * @debug: directory of the module in debugfs
 *
 * Return: 0 or an error.
 */
int noiommu_pin_init(int (*reach)(int segment, u8 bus, u8 devfn, u64 *limit, u32 *id),
		     struct dentry *debug)
{
	device_reach = reach;
	if (held_max_pages == ULONG_MAX) /* not set on the command line */
		held_max_pages = totalram_pages() / 2;
	debugfs_create_file("held", 0400, debug, NULL, &held_fops);
	return misc_register(&pin_device);
}

void noiommu_pin_exit(void)
{
	misc_deregister(&pin_device);
	cancel_delayed_work_sync(&log_work);
}
