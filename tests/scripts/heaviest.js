async (values, share) => {
  const { heaviest } = await import("/page/why/views.js");
  return [...heaviest(values, share)].sort((a, b) => a - b);
}
