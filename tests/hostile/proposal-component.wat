;; tries: a component that is empty
;; deploy: 400 not_deployed: component exports neither abi and handle *
(component)
