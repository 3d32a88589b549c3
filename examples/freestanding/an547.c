/* Arm MPS3 with the FPGA image AN547 (Corstone-300, Cortex-M55): UART 0, secure state. */
#include <stdint.h>

#include "board.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))

#define UART0_DATA    REGISTER(0x59303000u)
#define UART0_STATE   REGISTER(0x59303004u)
#define UART0_CTRL    REGISTER(0x59303008u)
#define UART0_BAUDDIV REGISTER(0x59303010u)

void board_start(void)
{
    UART0_BAUDDIV = 278; /* 32 MHz / 115200 */
    UART0_CTRL = 1;      /* send */
}

void board_put(char c)
{
    while (UART0_STATE & 1)
        ;
    UART0_DATA = (uint8_t)c;
}
