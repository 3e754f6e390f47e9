/* The ioctl interface of a lockfs descriptor; see doc.go beside this file for what each call means. */
#ifndef LOCKFS_H
#define LOCKFS_H

#include <linux/ioctl.h>
#include <linux/types.h>

enum lockfs_mode { LOCKFS_NL = 1, LOCKFS_CR, LOCKFS_CW, LOCKFS_PR, LOCKFS_PW, LOCKFS_EX };

enum lockfs_flag {
	LOCKFS_NOQUEUE = 1 << 0,   /* EAGAIN at once instead of waiting */
	LOCKFS_EXPEDITE = 1 << 1,  /* NL only: granted without queueing */
	LOCKFS_QUECVT = 1 << 2,    /* an upward conversion queues behind those that wait */
	LOCKFS_HEADQUE = 1 << 3,   /* at the head of its queue */
	LOCKFS_ALTPR = 1 << 4,     /* PR if the mode asked for cannot be had at once */
	LOCKFS_ALTCW = 1 << 5,     /* CW likewise */
	LOCKFS_NOBAST = 1 << 6,    /* no blocking notices */
	LOCKFS_NODLCKWT = 1 << 7,  /* its wait counts for no deadlock */
	LOCKFS_NODLCKBLK = 1 << 8, /* its blocking others counts for no deadlock */
	LOCKFS_ASYNC = 1 << 9,     /* return at once; poll(2) tells when it is granted */
};

struct lockfs_request {
	__u32 mode;       /* in: asked for; out: granted */
	__u32 flags;      /* in */
	__u64 wait_ns;    /* in: 0 for ever, else ETIMEDOUT after it */
	__u64 ttl_ns;     /* in: lost so long after the grant; 0 never */
	__u64 token;      /* out */
	__u64 generation; /* out */
	__u32 valid;      /* out */
	__u32 pad;
};

struct lockfs_token {
	__u64 token; /* out */
	__u32 mode;  /* out */
	__u32 pad;
};

struct lockfs_value {
	__u64 offset;     /* in */
	__u64 generation; /* out */
	__u32 size;       /* of the whole value; get: out, set: in */
	__u32 length;     /* of this piece; get: out, set: in */
	__u32 valid;      /* out */
	__u32 pad;
	char data[16288];
};

enum lockfs_kind {
	LOCKFS_GRANTED = 1, LOCKFS_BLOCKING, LOCKFS_CONVERTED, LOCKFS_RELEASED, LOCKFS_DEADLOCK, LOCKFS_LOST,
	LOCKFS_VALUE, LOCKFS_INVALID, LOCKFS_CREATED, LOCKFS_REMOVED, LOCKFS_RENAMED, LOCKFS_JEOPARDY,
	LOCKFS_SAFE, LOCKFS_LEADER, LOCKFS_HOST_JOINED, LOCKFS_HOST_LEFT, LOCKFS_OVERFLOW,
};

struct lockfs_notice {
	__u32 kind;
	__u32 mode;   /* of the descriptor's lock */
	__u32 wanted; /* blocking: what the other asks for */
	__u32 pid;    /* blocking: who, if on this host */
	__u64 token;
	__s64 time_ns; /* since 1970 */
	__u32 lost;    /* notices dropped before this one */
	__u32 left;    /* notices queued behind it */
	__u32 length;  /* of line */
	__u32 pad;
	char line[8144];
};

enum lockfs_view { LOCKFS_VIEW_LOCK = 1, LOCKFS_VIEW_POSIX, LOCKFS_VIEW_DLMFS };
enum lockfs_state { LOCKFS_UNLOCKED, LOCKFS_WAITING, LOCKFS_HELD, LOCKFS_CONVERTING, LOCKFS_LOST_LOCK };

struct lockfs_info {
	__u64 ino;
	__u64 generation;
	__u64 token;
	__s64 since_ns; /* since 1970 */
	__u8 mode;
	__u8 wanted;
	__u8 view;
	__u8 state;
	__u32 flags;
	__u32 notices; /* queued */
	__u32 length;  /* of path */
	__u32 pad;
	__u32 valid;
	__u64 pad2;
	char path[8128];
};

enum lockfs_verdict { LOCKFS_UNCHECKED, LOCKFS_STANDS, LOCKFS_PASSED };

struct lockfs_check {
	__u32 verdict; /* out */
	__u32 length;  /* of text */
	__u64 token;   /* out */
	char text[8176];
};

#define LOCKFS_IOC_REQUEST _IOWR('L', 1, struct lockfs_request)
#define LOCKFS_IOC_CONVERT _IOWR('L', 2, struct lockfs_request)
#define LOCKFS_IOC_TOKEN _IOWR('L', 3, struct lockfs_token)
#define LOCKFS_IOC_SEQUENCER _IOWR('L', 4, struct lockfs_check)
#define LOCKFS_IOC_NOTICE _IOWR('L', 5, struct lockfs_notice)
#define LOCKFS_IOC_VALUE_GET _IOWR('L', 6, struct lockfs_value)
#define LOCKFS_IOC_VALUE_SET _IOWR('L', 7, struct lockfs_value)
#define LOCKFS_IOC_INFO _IOWR('L', 8, struct lockfs_info)
#define LOCKFS_IOC_CHECK _IOWR('L', 9, struct lockfs_check)

#endif
