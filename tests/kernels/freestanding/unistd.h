/* SPDX-License-Identifier: MIT */
/* There is no POSIX here. */
