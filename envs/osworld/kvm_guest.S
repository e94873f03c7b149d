# The tiny guest of kvm.py: what a real guest's boot does first, then its exit.  512 bytes, a boot sector.
#   as --32 kvm_guest.S -o g.o && ld -m elf_i386 -Ttext 0x7c00 --oformat binary g.o -o g.bin
.code16
.globl _start
_start:
    cli
    xor %ax, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov $0x7c00, %sp
    # the BIOS is asked for its disks, as a kernel does ("Probing EDD")
    mov $0x41, %ah
    mov $0x55aa, %bx
    mov $0x80, %dl
    int $0x13
    mov $0x0201, %ax
    mov $0x0001, %cx
    mov $0x0080, %dx
    mov $0x8000, %bx
    int $0x13
    jc fail
    cmpw $0xaa55, 0x81fe
    jne fail
    # page tables at 0x1000: 2 MiB, mapped as itself
    mov $0x1000, %edi
    mov %edi, %cr3
    xor %eax, %eax
    mov $0x0c00, %ecx
    cld
    rep stosl
    movl $0x2003, 0x1000
    movl $0x3003, 0x2000
    movl $0x0083, 0x3000
    lgdt gdt_pointer
    mov %cr4, %eax
    or $0x20, %eax
    mov %eax, %cr4
    mov $0xc0000080, %ecx
    rdmsr
    or $0x100, %eax
    wrmsr
    mov %cr0, %eax
    or $0x80000001, %eax
    mov %eax, %cr0
    ljmp $0x08, $long
fail:
    mov $0x20, %al
    out %al, $0xf4
    hlt
.code64
long:
    mov $1000000, %ecx
again:
    rdtsc
    dec %ecx
    jnz again
    xor %eax, %eax
    cpuid
    mov $0x10, %al
    out %al, $0xf4
    hlt
.align 8
gdt:
    .quad 0
    .quad 0x00209a0000000000
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .long gdt
.org 510
    .word 0xaa55
