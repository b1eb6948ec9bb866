package transfer

const seekData = 3 // SEEK_DATA of lseek(2)
