/* What the program needs of a board: a way to say something. */
#ifndef BOARD_H
#define BOARD_H

void board_start(void);
void board_put(char c);

#endif
