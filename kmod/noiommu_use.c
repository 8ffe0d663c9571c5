// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Uses: who has a device, and what has to wait until he has given it back.
 *
 * Copyright (c) 2026, baremetal.noiommu contributors
 *
 * The rule: a use begins before anybody can open the device, and ends after it
 * has been stopped. VFIO and iommufd claim a device first and release it last,
 * which noiommu_iommu.c sees by the domains that are attached. Resets and the
 * domains that come and go in between are part of the use.
 *
 * A use begins with everything that has to be asked and told, here and nowhere
 * else: the capability, the lockdown, the taint, and the log.
 *
 * When it ends, some memory may go back to the system: that of files which were
 * closed while the device was in use, see noiommu_pin.c. That takes time and
 * locks, which the IOMMU core's callbacks have not; yet whoever ends the last use,
 * mostly by being killed, must not be seen to have ended before. So each use has
 * a file that nobody opens. What its last fput() causes is done by the task
 * itself, before it returns to userspace or can be waited for.
 *
 * Locking: use_lock is taken last, under whatever the IOMMU core holds.
 */

#define dev_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/anon_inodes.h>
#include <linux/capability.h>
#include <linux/device.h>
#include <linux/err.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/panic.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/security.h>
#include <linux/slab.h>

#include "noiommu.h"

/**
 * struct noiommu_use - a use of a device
 * @entry: in uses, until it ends
 * @device: number of the device
 * @user: address space of who began it, of which the structure is held, or NULL
 * @end: its last fput() has the waiters looked at
 * @waits: those who wait for the end
 */
struct noiommu_use {
	struct list_head entry;
	u32 device;
	struct mm_struct *user;
	struct file *end;
	struct list_head waits;
};

/* One waiter that waits for one use */
struct wait {
	struct list_head entry;
	struct noiommu_waiter *waiter;
};

/* Protects the uses and all who wait for them */
static DEFINE_MUTEX(use_lock);
static LIST_HEAD(uses);
static void (*waiters_done)(struct list_head *waiters);

static int use_release(struct inode *inode, struct file *file)
{
	struct noiommu_use *use = file->private_data;
	struct wait *wait, *next;
	LIST_HEAD(done);

	mutex_lock(&use_lock);
	list_for_each_entry_safe(wait, next, &use->waits, entry) {
		if (!--wait->waiter->uses)
			list_add_tail(&wait->waiter->entry, &done);
		kfree(wait);
	}
	mutex_unlock(&use_lock);

	if (use->user)
		mmdrop(use->user);
	kfree(use);
	if (!list_empty(&done))
		waiters_done(&done);
	return 0;
}

static const struct file_operations use_fops = {
	.owner		= THIS_MODULE,
	.release	= use_release,
};

/*
 * VFIO leaves the question of who may have a device to the permissions of its
 * files, because an IOMMU keeps that user in its place. Nothing does here.
 */
static int vet(struct device *dev)
{
	if (!capable(CAP_SYS_RAWIO)) {
		dev_warn_ratelimited(dev, "refused to %s[%d], which lacks CAP_SYS_RAWIO in the initial user namespace\n",
				     current->comm, task_pid_nr(current));
		return -EPERM;
	}

	/* Says in the log who was refused, and what */
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
 * @device: its number, which the address of a device is not: it is not used
 *	again for a long time
 * @first: nobody had the device since it was added
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
 * noiommu_use_end() - a device has been given back, and stopped
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
 * @concerns: says whether a use of this device by this user is one of them
 *
 * When the last of them has ended, the function that noiommu_use_init() was told
 * of is called, by a task that holds no locks.
 *
 * Return: false if none of those that go on is of concern, so that there is
 * nothing to wait for.
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
		/* Nobody could be told that it failed */
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
 * noiommu_use_init() - say what is to be done with those who have waited
 * @done: gets a list of waiters, by their entries
 */
void noiommu_use_init(void (*done)(struct list_head *waiters))
{
	waiters_done = done;
}
