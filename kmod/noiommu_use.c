// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Uses: who has a device, and what must wait until the device is released.
 *
 * Copyright (c) 2026, baremetal.noiommu contributors
 *
 * The rule: a use begins before anyone can open the device, and ends after the
 * device has been stopped. VFIO and iommufd claim a device first and release it
 * last, which noiommu_iommu.c sees by the domains that they attach. Resets, and
 * domains that come and go in between, belong to the use.
 *
 * All checks and notices about a user happen when a use begins, here and nowhere
 * else: the capability, the lockdown, the taint and the log.
 *
 * When a use ends, memory may go back to the system: that of files which were
 * closed while the device was in use, see noiommu_pin.c. This takes time and
 * locks, which the callbacks of the IOMMU core must not take. But it must be done
 * before the task that ends the last use can be waited for, and that task is often
 * being killed. So each use has a file that nobody opens: the kernel runs what its
 * last fput() triggers in the task itself, before the task returns to userspace or
 * can be reaped.
 *
 * Locking: use_lock comes last, after all locks of the IOMMU core.
 */

#define dev_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/anon_inodes.h>
#include <linux/capability.h>
#include <linux/device.h>
#include <linux/err.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/jiffies.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/panic.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/security.h>
#include <linux/seq_file.h>
#include <linux/slab.h>

#include "noiommu.h"

/**
 * struct noiommu_use - a use of a device
 * @entry: in uses, until it ends
 * @device: number of the device
 * @user: address space of the process that began it, or NULL; only the structure
 *	is held, not the memory that it describes
 * @name: what that process was called
 * @pid: its number
 * @since: when it began, in jiffies
 * @end: the last fput() of this file wakes the waiters
 * @waits: the waits for the end
 */
struct noiommu_use {
	struct list_head entry;
	u32 device;
	struct mm_struct *user;
	char name[TASK_COMM_LEN];
	pid_t pid;
	unsigned long since;
	struct file *end;
	struct list_head waits;
};

/* One waiter that waits for one use */
struct wait {
	struct list_head entry;
	struct noiommu_waiter *waiter;
};

/* Protects the uses and their waiters */
static DEFINE_MUTEX(use_lock);
static LIST_HEAD(uses);
static void (*settle)(struct list_head *waiters);

static int use_release(struct inode *inode, struct file *file)
{
	struct noiommu_use *use = file->private_data;
	struct wait *wait, *next;
	LIST_HEAD(settled);

	mutex_lock(&use_lock);
	list_for_each_entry_safe(wait, next, &use->waits, entry) {
		if (!--wait->waiter->uses)
			list_add_tail(&wait->waiter->entry, &settled);
		kfree(wait);
	}
	mutex_unlock(&use_lock);

	if (use->user)
		mmdrop(use->user);
	kfree(use);
	if (!list_empty(&settled))
		settle(&settled);
	return 0;
}

static const struct file_operations use_fops = {
	.owner		= THIS_MODULE,
	.release	= use_release,
};

/*
 * VFIO lets the permissions of its files decide who may have a device, because an
 * IOMMU confines that user. Nothing does so here.
 */
static int vet(struct device *dev)
{
	if (!capable(CAP_SYS_RAWIO)) {
		dev_warn_ratelimited(dev, "refused to %s[%d], which lacks CAP_SYS_RAWIO in the initial user namespace\n",
				     current->comm, task_pid_nr(current));
		return -EPERM;
	}

	/* Logs who was refused, and what */
	return security_locked_down(LOCKDOWN_PCI_ACCESS);
}

static void announce(struct device *dev, bool first)
{
	add_taint(TAINT_USER, LOCKDEP_STILL_OK);
	if (first)
		dev_warn(dev, "handed to %s[%d] without an IOMMU: it can read and write all memory; the kernel is tainted\n",
			 current->comm, task_pid_nr(current));
	else
		dev_info_ratelimited(dev, "handed to %s[%d] without an IOMMU, again\n",
				     current->comm, task_pid_nr(current));
}

/**
 * noiommu_use_begin() - the calling process gets a device
 * @dev: the device
 * @device: its number. Unlike its address, the number is not reused for a long
 *	time
 * @first: this is the first use since the device was added
 *
 * Return: the use, -EPERM if the caller may not have the device, or -ENOMEM or
 * -ENFILE.
 */
struct noiommu_use *noiommu_use_begin(struct device *dev, u32 device, bool first)
{
	struct noiommu_use *use;
	int ret;

	ret = vet(dev);
	if (ret)
		return ERR_PTR(ret);

	use = kzalloc(sizeof(*use), GFP_KERNEL);
	if (!use)
		return ERR_PTR(-ENOMEM);
	INIT_LIST_HEAD(&use->waits);
	use->device = device;
	use->pid = task_tgid_nr(current);
	use->since = jiffies;
	get_task_comm(use->name, current);
	use->end = anon_inode_getfile("[noiommu-use]", &use_fops, use, O_RDONLY);
	if (IS_ERR(use->end)) {
		ret = PTR_ERR(use->end);
		kfree(use);
		return ERR_PTR(ret);
	}
	use->user = current->mm;
	if (use->user)
		mmgrab(use->user);

	mutex_lock(&use_lock);
	list_add_tail(&use->entry, &uses);
	mutex_unlock(&use_lock);
	announce(dev, first);
	return use;
}

/**
 * noiommu_use_end() - a device has been stopped and released
 * @use: its use
 */
void noiommu_use_end(struct noiommu_use *use)
{
	mutex_lock(&use_lock);
	list_del(&use->entry);
	mutex_unlock(&use_lock);
	fput(use->end);
}

/**
 * noiommu_use_wait() - wait for the end of some uses
 * @waiter: who waits
 * @concerns: tells whether a use of this device by this user is one of them
 *
 * When the last of these uses has ended, the waiter is passed to the function that
 * noiommu_use_init() was given, by a task that holds no locks.
 *
 * Return: false if no current use is one of them, so that there is nothing to wait
 * for.
 */
bool noiommu_use_wait(struct noiommu_waiter *waiter,
		      bool (*concerns)(struct noiommu_waiter *waiter, u32 device,
				       const struct mm_struct *user))
{
	struct noiommu_use *use;
	bool waits;

	waiter->uses = 0;
	mutex_lock(&use_lock);
	list_for_each_entry(use, &uses, entry) {
		struct wait *wait;

		if (!concerns(waiter, use->device, use->user))
			continue;
		/* The caller is a release(), whose error nobody would see */
		wait = kmalloc(sizeof(*wait), GFP_KERNEL | __GFP_NOFAIL);
		wait->waiter = waiter;
		list_add_tail(&wait->entry, &use->waits);
		waiter->uses++;
	}
	waits = waiter->uses;
	mutex_unlock(&use_lock);
	return waits;
}

/**
 * noiommu_use_show() - say who uses a device
 * @m: where to write it
 * @device: number of the device
 */
void noiommu_use_show(struct seq_file *m, u32 device)
{
	struct noiommu_use *use;
	bool used = false;

	mutex_lock(&use_lock);
	list_for_each_entry(use, &uses, entry) {
		if (use->device != device)
			continue;
		seq_printf(m, " used by %*pE[%d] for %lu s",
			   (int)strnlen(use->name, sizeof(use->name)), use->name,
			   use->pid, (jiffies - use->since) / HZ);
		used = true;
	}
	mutex_unlock(&use_lock);
	if (!used)
		seq_puts(m, " unused");
}

/**
 * noiommu_use_init() - say what to do with waiters that need not wait any more
 * @settled: gets a list of waiters, linked by their entries
 */
void noiommu_use_init(void (*settled)(struct list_head *waiters))
{
	settle = settled;
}
