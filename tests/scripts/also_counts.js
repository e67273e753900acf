async (parts, drawn) => {
  const { alsoCounts } = await import("/page/shared/words.js");
  return alsoCounts({ text: [], like: [], unlike: [], unlike_kind: [], ...parts }, drawn);
}
