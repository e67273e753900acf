async (answer, text) => {
  const { fitRemark } = await import("/page/shared/words.js");
  return fitRemark(answer, text);
}
