package transfer

const seekData = 4 // SEEK_DATA of lseek(2)
