/* STM32F405 (Netduino Plus 2 and many others): USART1 on PB6, 115200 baud at the 16 MHz with which
 * the chip starts. */
#include <stdint.h>

#include "board.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))

#define RCC_AHB1ENR REGISTER(0x40023830u)
#define RCC_APB2ENR REGISTER(0x40023844u)
#define GPIOB_MODER REGISTER(0x40020400u)
#define GPIOB_AFRL  REGISTER(0x40020420u)
#define USART1_SR   REGISTER(0x40011000u)
#define USART1_DR   REGISTER(0x40011004u)
#define USART1_BRR  REGISTER(0x40011008u)
#define USART1_CR1  REGISTER(0x4001100cu)

void board_start(void)
{
    RCC_AHB1ENR |= 1u << 1; /* port B */
    RCC_APB2ENR |= 1u << 4; /* USART1 */
    GPIOB_MODER = (GPIOB_MODER & ~(3u << 12)) | 2u << 12;
    GPIOB_AFRL = (GPIOB_AFRL & ~(15u << 24)) | 7u << 24;
    USART1_BRR = 139; /* 16 MHz / 115200 */
    USART1_CR1 = 1u << 13 | 1u << 3;
}

void board_put(char c)
{
    while (!(USART1_SR & 1u << 7))
        ;
    USART1_DR = (uint8_t)c;
}
