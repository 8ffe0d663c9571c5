// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * /dev/noiommu: pins memory and says where it is.
 *
 * Copyright (c) 2026, baremetal.noiommu contributors
 *
 * The interface, with all promises and errors, is in include/uapi/noiommu.h.
 *
 * What is kept of a mapping is its extents, 16 bytes each, however many pages
 * they have. Of these each page is pinned, except that a folio of hugetlb holds
 * one pin for each time that it is mapped in the buffer: it can neither be split
 * nor mapped in part. These are found again by walking from folio to folio.
 *
 * When a process is killed, its files are closed in an order that it does not
 * choose, and its device may still be writing when the file of its memory goes.
 * So what is left of a file is held until the devices that may know of its memory
 * have been stopped: all uses that are going on at the last close, and are of a
 * device that the memory was mapped for, or by a process whose memory it is.
 *
 * A pin gives no access that the device did not have before. So the kernel is
 * not tainted here, but where a device is handed over. Physical addresses are
 * worth protecting all the same, hence the capability.
 *
 * Locking: the lock of the open file, then mmap_lock of the caller.
 */

#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/atomic.h>
#include <linux/capability.h>
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
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/workqueue.h>

#include "include/uapi/noiommu.h"
#include "noiommu.h"

/* Pages to pin or unpin at once: as many as a page has pointers */
#define BATCH	(PAGE_SIZE / sizeof(struct page *))

/**
 * struct extent - contiguous pages of a mapping
 * @index: how many pages of the buffer come before them
 * @pfn: the first one
 */
struct extent {
	unsigned long index;
	unsigned long pfn;
};

/**
 * struct mapping - a pinned buffer
 * @node: in the file's tree, ordered by @mm and @start
 * @mm: the address space that @start is in and that pays for the memory; the
 *	structure is held, not what it describes
 * @start: where the buffer starts
 * @npages: its size
 * @nr: how many extents it takes
 * @device: the device it is for, from noiommu_iommu_reach()
 * @hugetlb: some of it is hugetlb memory
 * @extents: what it is made of
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
 * struct pin_file - an open file, or what is left of it
 * @lock: held throughout each call
 * @mappings: those made through it
 * @waiter: waits for uses of devices after the last close
 * @npages: what it has then
 */
struct pin_file {
	struct mutex lock; /* see above */
	struct rb_root mappings;
	struct noiommu_waiter waiter;
	unsigned long npages;
};

/**
 * struct pinning - a mapping in the making
 * @pages: room for BATCH pages
 * @extents: so far
 * @nr: how many these are
 * @room: how many there is room for
 * @npages: how many pages they have
 * @next: the frame that would make the last extent longer
 * @top: the highest frame so far
 * @reach: how many frames, from 0, may be pinned
 * @hugetlb: some of it is hugetlb memory
 * @single: pin but one page next, as it may be one of hugetlb
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

/* Unpin up to @left contiguous pages; how many of them there is no pin of now */
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
 * A device that writes into the page cache does so behind the back of its
 * filesystem, and pages that a driver has put into a mapping are the driver's.
 */
static bool is_user_memory(struct folio *folio)
{
	return folio_test_swapbacked(folio) || folio_test_anon(folio) ||
	       folio_test_hugetlb(folio);
}

/* Take over those of @got pinned pages that are contiguous and in one folio */
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
		/* Unless somebody else is changing what is mapped here */
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

/* Why did the kernel not want to pin this? */
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

/* Pin @npages at @start, or some of them and return why not all */
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

		/* More would be given back at once, see append_folio() */
		got = pin_user_pages_fast(va, p->single ? 1 : min(want, BATCH),
					  FOLL_WRITE | FOLL_LONGTERM, p->pages);
		if (got == -EFAULT || !got)
			return explain_fault(va);
		/* Memory of a device: as if it was a file's, or without pages */
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

/* The inverse of account_locked_vm(), which has nobody to bill after exit */
static void unaccount(struct mm_struct *mm, unsigned long npages)
{
	if (mmget_not_zero(mm)) {
		account_locked_vm(mm, npages, false);
		mmput(mm);
	}
}

/* Pin and account for a buffer of the caller's address space */
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

/* May wait for whatever the address space is locked for */
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

/* The extent that a page of the mapping is in */
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
 * Write what there is from byte @from to before byte @to of a mapping, and how
 * many extents that is; nothing but the latter if it is more than @room
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

/* Is this a range of addresses, and of which? */
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

static int do_map(struct pin_file *pf, union argument *arg, void __user *uarg)
{
	struct noiommu_map __user *user = uarg;
	struct noiommu_map *map = &arg->map;
	unsigned long last;
	struct mapping *m;
	u32 device;
	u64 limit;
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

	ret = noiommu_iommu_reach(map->segment, map->bus,
				  PCI_DEVFN(map->device, map->function),
				  &limit, &device);
	if (ret)
		return ret;
	if (map->last_addr)
		limit = min(limit, (u64)map->last_addr);

	m = find_mapping(pf, map->user_va);
	if (m && m->start <= last)
		return -EEXIST;
	if (!access_ok((void __user *)(unsigned long)map->user_va, map->length))
		return -EFAULT;

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
		destroy_mapping(m);
	}
	return 0;
}

/* By number; the sizes are those of version 1 and of now, the same as yet */
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

/* May this device, which this user has, be writing to memory of the file? */
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

/*
 * What is left of closed files belongs to nobody who could be asked about it, and
 * there may be much of it, for as long as somebody keeps a device: so the log
 * tells, unless it was only a matter of who of a process's files comes first.
 */
#define HELD_LONG	(5 * HZ)

static atomic_long_t held_pages;
static unsigned long held_told;

static void tell_held(struct work_struct *work)
{
	unsigned long npages = atomic_long_read(&held_pages);

	if (npages == READ_ONCE(held_told))
		return;
	WRITE_ONCE(held_told, npages);
	if (npages)
		pr_info("%lu KiB of closed files stay pinned until the devices that may write to them are given back\n",
			npages << (PAGE_SHIFT - 10));
	else
		pr_info("all memory of closed files has been given back\n");
}

static DECLARE_DELAYED_WORK(tell_work, tell_held);

static void count_given_back(unsigned long npages)
{
	if (!atomic_long_sub_return(npages, &held_pages) && READ_ONCE(held_told))
		schedule_delayed_work(&tell_work, 0);
}

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
 * noiommu_pin_settle() - give back memory of devices that have been stopped
 * @waiters: the files that it is of
 *
 * All of the memory comes first: what follows may have to wait.
 */
void noiommu_pin_settle(struct list_head *waiters)
{
	struct pin_file *pf, *next;

	list_for_each_entry(pf, waiters, waiter.entry) {
		unpin_file(pf);
		count_given_back(pf->npages);
	}
	list_for_each_entry_safe(pf, next, waiters, waiter.entry)
		free_file(pf);
}

static int pin_release(struct inode *inode, struct file *file)
{
	struct pin_file *pf = file->private_data;
	struct rb_node *node;
	unsigned long npages = 0;

	for (node = rb_first(&pf->mappings); node; node = rb_next(node))
		npages += to_mapping(node)->npages;
	pf->npages = npages;

	/* From here on, what waits may be gone at any time */
	atomic_long_add(npages, &held_pages);
	if (noiommu_use_wait(&pf->waiter, use_concerns)) {
		schedule_delayed_work(&tell_work, HELD_LONG);
		return 0;
	}

	unpin_file(pf);
	count_given_back(npages);
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

int noiommu_pin_init(void)
{
	return misc_register(&pin_device);
}

void noiommu_pin_exit(void)
{
	misc_deregister(&pin_device);
	cancel_delayed_work_sync(&tell_work);
}
