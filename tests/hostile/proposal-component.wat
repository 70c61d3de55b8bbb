;; tries: a component that is none
;; deploy: 400 not_deployed: components are not supported by this version: *
(component)
